package contract

import "strings"

// FormatSteps writes the names of a sequence as the value of StepsAnnotation.
func FormatSteps(names []string) string { return strings.Join(names, ",") }

// ParseSteps reads the value of StepsAnnotation; white space around a name does not count. It is empty for an empty value.
func ParseSteps(value string) []string {
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}
