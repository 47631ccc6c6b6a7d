package controller

import (
	"regexp"
	"strings"
	"unicode"
)

// Texts from outside (a step's termination message, a message from a kubelet, a scheduler, a registry or a policy) pass through clean and
// cleanReason into statuses, events and annotations: users read them in a terminal, and the API server rejects what is too long.

// Bounds in bytes, below those of the API server: 32,768 for the message of a condition, and 1,024 for the note of an event.
const (
	maxMessage     = 2048 // of a condition and of an earlier attempt
	maxStepMessage = 4096 // of a step: as long as a kubelet's termination message
	maxNote        = 1000 // of an event, and of a halt
	maxReason      = 128
)

// terminalSequence matches the control sequences of terminals: ECMA-48, 5.4 (CSI), 5.6 (strings such as OSC), and two-byte sequences.
var terminalSequence = regexp.MustCompile("(?s)(?:\x1b\\[|\u009b)[0-?]*[ -/]*[@-~]?|(?:\x1b[\\]PX^_]|[\u009d\u0090\u0098\u009e\u009f]).*?(?:\x07|\x1b\\\\|\u009c|$)|\x1b[ -/]*[0-~]?")

// clean returns the text on one line, without control characters, terminal sequences and invalid UTF-8, and cut to a number of bytes. A clean
// text stays unchanged.
func clean(text string, most int) string {
	if strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) < 0 { // printable ASCII, as most texts are
		return cut(text, most)
	}
	text = strings.ToValidUTF8(text, "")
	text = terminalSequence.ReplaceAllString(text, "")
	var kept strings.Builder
	space := false
	for _, r := range text {
		switch {
		case r == '\n', r == '\r', r == '\t', r == '\v', r == '\f', r == '\u0085', unicode.In(r, unicode.Zl, unicode.Zp):
			space = true
			continue
		case unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs): // Cf contains the marks that change the direction of text
			continue
		}
		if space && kept.Len() > 0 && r != ' ' {
			kept.WriteByte(' ')
		}
		space = false
		kept.WriteRune(r)
	}
	return cut(strings.TrimSpace(kept.String()), most)
}

// cut shortens a text, and marks it as cut.
func cut(text string, most int) string {
	const mark = "…"
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len(mark)], "") + mark // without half a character
}

// reasonPattern is the API's pattern for the reason of a condition.
var reasonPattern = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`)

// cleanReason returns the reason, or the alternative if the reason is not a word, or is too long.
func cleanReason(reason, alternative string) string {
	if len(reason) > maxReason || !reasonPattern.MatchString(reason) {
		return alternative
	}
	return reason
}
