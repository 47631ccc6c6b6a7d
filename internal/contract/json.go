package contract

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// The agent reads and writes JSON with the functions below. With encoding/json it would be 24 % larger (2.40 MB instead of 1.93 MB), and
// every step has one. Besides, encoding/json can't read a record that the kubelet cut. The strings here have only escapes that Go has, too.

// quote returns the text as a JSON string. Like encoding/json, it replaces invalid UTF-8 by U+FFFD.
func quote(text string) string {
	const hex = "0123456789abcdef"
	b := []byte{'"'}
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&0xf])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return string(append(b, '"'))
}

// unquote is the reverse of quote. It returns "" for a value that is not a string.
func unquote(value string) string {
	if !strings.HasPrefix(value, `"`) {
		return ""
	}
	text, _ := strconv.Unquote(value)
	return text
}

// quoteAll returns the texts as a JSON array.
func quoteAll(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = quote(text)
	}
	return "[" + strings.Join(quoted, ",") + "]"
}

// unquoteAll is the reverse of quoteAll. It returns nil for a value that is not an array. Of one that was cut, it returns the whole elements.
func unquoteAll(value string) []string {
	if !strings.HasPrefix(value, "[") {
		return nil
	}
	all, _ := elements(value)
	for i := range all {
		all[i] = unquote(all[i])
	}
	return all
}

// members returns the values of the object at the start of the text, verbatim, by name. The rest is as in elements. If the text was cut in a
// value that is an array, that value has what is left of it.
func members(text string) (values map[string]string, rest string) {
	all, rest := elements(text)
	values = make(map[string]string, len(all))
	if rest == "" {
		start := len("{")
		for _, member := range all {
			start += len(member) + len(",")
		}
		last := text[min(start, len(text)):]
		if name, err := strconv.QuotedPrefix(last); err == nil && strings.HasPrefix(last[len(name):], ":[") {
			all = append(all, last)
		}
	}
	for _, member := range all {
		if name, err := strconv.QuotedPrefix(member); err == nil {
			values[unquote(name)] = strings.TrimPrefix(member[len(name):], ":")
		}
	}
	return values, rest
}

// elements returns the elements of the array, or the members of the object, at the start of the text, verbatim. The rest begins with the
// closing bracket. If the text was cut, elements returns only whole elements, and no rest.
func elements(text string) (whole []string, rest string) {
	depth, start := 0, 1
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			quoted, err := strconv.QuotedPrefix(text[i:])
			if err != nil {
				return whole, ""
			}
			i += len(quoted) - 1
		case '[', '{':
			depth++
		case ',':
			if depth == 1 {
				whole = append(whole, text[start:i])
				start = i + 1
			}
		case ']', '}':
			if depth--; depth == 0 {
				if start < i {
					whole = append(whole, text[start:i])
				}
				return whole, text[i:]
			}
		}
	}
	return whole, ""
}
