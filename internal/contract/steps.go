package contract

import "strings"

// FormatSteps returns the value of StepsAnnotation for the names of a sequence.
func FormatSteps(names []string) string { return strings.Join(names, ",") }

// ParseSteps parses the value of StepsAnnotation. It ignores white space around names, and returns nil for an empty value.
func ParseSteps(value string) []string {
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}
