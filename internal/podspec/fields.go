package podspec

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// checkFields rejects a decoded value that doesn't fit a type of the API: an unknown field or another kind of value. Its error names the path, and
// what to write.
func checkFields(path string, value any, t reflect.Type) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if value == nil {
		return fmt.Errorf("%s has no value: write one, or remove the field", path)
	}
	switch {
	case t == reflect.TypeFor[metav1.Duration]():
		return checkDuration(path, value)
	case t.Kind() == reflect.Struct:
		return checkObject(path, value, t)
	case t.Kind() == reflect.Slice:
		list, isList := value.([]any)
		if !isList {
			return fmt.Errorf("%s must be a list, not %s: write it in brackets, such as [a, b]", path, describe(value))
		}
		for i, element := range list {
			if err := checkFields(fmt.Sprintf("%s[%d]", path, i), element, t.Elem()); err != nil {
				return err
			}
		}
		return nil
	case t.Kind() == reflect.String:
		return checkText(path, value)
	case t.Kind() == reflect.Bool:
		if _, isBool := value.(bool); !isBool {
			return fmt.Errorf("%s must be true or false, not %s", path, describe(value))
		}
		return nil
	}
	return checkInteger(path, value)
}

func checkText(path string, value any) error {
	switch value.(type) {
	case string:
		return nil
	case bool:
		return fmt.Errorf("%s: YAML reads the value as %s, as it does true, yes and on, or false, no and off: put it in quotes", path, describe(value))
	case json.Number:
		return fmt.Errorf("%s: YAML reads the value as %s: put it in quotes", path, describe(value))
	}
	return fmt.Errorf("%s must be a text, not %s", path, describe(value))
}

func checkInteger(path string, value any) error {
	number, isNumber := value.(json.Number)
	if _, err := strconv.ParseInt(number.String(), 10, 32); !isNumber || err != nil {
		return fmt.Errorf("%s must be a whole number, not %s", path, describe(value))
	}
	return nil
}

func checkDuration(path string, value any) error {
	text, isText := value.(string)
	if _, err := time.ParseDuration(text); !isText || err != nil {
		return fmt.Errorf("%s must be a number with a unit, such as 90s or 1h30m, not %s", path, describe(value))
	}
	return nil
}

func checkObject(path string, value any, t reflect.Type) error {
	object, isObject := value.(fields)
	known := jsonFields(t)
	if !isObject {
		return fmt.Errorf("%s must be an object, not %s: its fields are %s", path, describe(value), strings.Join(sortedKeys(known), ", "))
	}
	for _, key := range sortedKeys(object) {
		i, isKnown := known[key]
		if !isKnown {
			return unknownField(path, key, sortedKeys(known))
		}
		if err := checkFields(path+"."+key, object[key], t.Field(i).Type); err != nil {
			return err
		}
	}
	return nil
}

// unknownField returns the sentence about a field that doesn't exist.
func unknownField(path, key string, known []string) error {
	switch nearest, isNear := nearest(key, known); {
	case key == "script":
		return fmt.Errorf("%s.script: only a step of a Task has a script: set command of the container, or name a Task", path)
	case isContainerField(key):
		return fmt.Errorf("%s.%s is a field of the container: set it there", path, key)
	case isNear:
		return fmt.Errorf("%s: the field %s is unknown: did you mean %s?", path, quoteShort(key), nearest)
	}
	return fmt.Errorf("%s: the field %s is unknown: remove it (the fields are %s)", path, quoteShort(key), strings.Join(known, ", "))
}

func isContainerField(key string) bool {
	_, is := jsonFields(reflect.TypeFor[corev1.Container]())[key]
	return is
}

// jsonFields returns the indexes of a struct's fields by their names in JSON.
func jsonFields(t reflect.Type) map[string]int {
	indexes := make(map[string]int, t.NumField())
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		indexes[name] = i
	}
	return indexes
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// describe returns what a decoded value is, for sentences.
func describe(value any) string {
	switch value := value.(type) {
	case nil:
		return "nothing"
	case bool:
		return fmt.Sprintf("the boolean %t", value)
	case json.Number:
		return "the number " + value.String()
	case string:
		return "the text " + quoteShort(value)
	case []any:
		if len(value) == 0 {
			return "an empty list"
		}
		return "a list"
	}
	return "an object"
}

// quoteShort quotes a user's text for a sentence, and cuts a long one.
func quoteShort(text string) string {
	const most = 63
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "..."
	}
	return strconv.Quote(text)
}

// nearest returns the candidate that a misspelt name most likely means.
func nearest(name string, candidates []string) (string, bool) {
	if len(name) > 63 {
		return "", false
	}
	best, least := "", min(3, (len(name)+1)/2, len(name)-1)+1
	for _, candidate := range candidates {
		if d := distance(strings.ToLower(name), strings.ToLower(candidate)); d < least {
			best, least = candidate, d
		}
	}
	return best, best != ""
}

// distance is how many letters have to be inserted, removed or replaced to make one text of the other (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
