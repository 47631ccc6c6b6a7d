package contract

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// What the agent reads and writes of JSON, without encoding/json. In its strings are no escapes but those that Go has, too.

// quote returns the text as a string of JSON. What isn't UTF-8 becomes U+FFFD, as in encoding/json.
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

// unquote is the reverse. It is empty for what isn't a string.
func unquote(value string) string {
	if !strings.HasPrefix(value, `"`) {
		return ""
	}
	text, _ := strconv.Unquote(value)
	return text
}

// members are the values of the object that the text begins with, by their names and as they stand there. For the rest see elements.
func members(text string) (values map[string]string, rest string) {
	all, rest := elements(text)
	values = make(map[string]string, len(all))
	for _, member := range all {
		if name, err := strconv.QuotedPrefix(member); err == nil {
			values[unquote(name)] = strings.TrimPrefix(member[len(name):], ":")
		}
	}
	return values, rest
}

// elements are the elements of the array that the text begins with, or the members of the object, as they stand there; the rest begins
// with its last bracket. Of a text that was cut they are those that are whole, and there is no rest.
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
