package controller

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// TestClean proves what remains of a text from outside.
func TestClean(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"plain":                     {`step "a" failed: exit 3`, `step "a" failed: exit 3`},
		"empty":                     {"", ""},
		"other languages":           {"構建 fehlgeschlagen: größe 🙂", "構建 fehlgeschlagen: größe 🙂"},
		"lines":                     {"\none\r\n\ttwo\n\n", "one two"},
		"line separators":           {"one\u2028two\u2029three\u0085four", "one two three four"},
		"NUL, BEL, DEL":             {"a\x00b\x07c\x7fd", "abcd"},
		"a colour":                  {"\x1b[31mred\x1b[0m", "red"},
		"a cleared screen":          {"\x1b[2J\x1b[1;1Hall is well", "all is well"},
		"a title":                   {"\x1b]0;mine\x07text\x1b]2;mine\x1b\\text", "texttext"},
		"a title without an end":    {"text\x1b]0;mine", "text"},
		"a sequence in one rune":    {"a\u009b31mb\u009d0;mine\u009cc", "abc"},
		"a sequence that is cut":    {"text\x1b[3", "text"},
		"a sequence of two":         {"a\x1bcb", "ab"},
		"an escape at the end":      {"text\x1b", "text"},
		"sequences within another":  {"a\x1b\x1b[2J[2Jb", "a[2Jb"},
		"the direction of the text": {"\u202egnp.exe\u2066", "gnp.exe"},
		"invalid UTF-8":             {"a\xff\xfeb\x9b2Jc", "ab2Jc"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, clean(c.text, 1000)); diff != "" {
				t.Errorf("clean(%q) (-want +got):\n%s", c.text, diff)
			}
		})
	}
	for most, c := range map[int]struct{ text, want string }{
		10: {"0123456789", "0123456789"},
		9:  {"0123456789", "012345…"},
		8:  {"öööööö", "öö…"},
	} {
		if got := clean(c.text, most); got != c.want {
			t.Errorf("clean(%q, %d) = %q, want %q", c.text, most, got, c.want)
		}
	}
}

// FuzzClean proves for any text that the result is short, valid and without control characters, and that it stays as it is.
func FuzzClean(f *testing.F) {
	for _, seed := range []string{"", "plain", "\x1b[31m\n", "\u009b", "\xff", strings.Repeat("ö", 100), "\x1b\x1b[[", " \n \u2028 x", "\x1b]\x1b\\"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		const most = 50
		got := clean(text, most)
		switch {
		case len(got) > most:
			t.Errorf("it has %d bytes", len(got))
		case !utf8.ValidString(got):
			t.Error("it isn't valid UTF-8")
		case strings.ContainsFunc(got, func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }):
			t.Error("it has control characters")
		case clean(got, most) != got:
			t.Errorf("once more it is %q", clean(got, most))
		}
		if t.Failed() {
			t.Logf("clean(%q) = %q", text, got)
		}
	})
}

// TestCleanReason proves which reasons are kept: those that the API allows for a condition.
func TestCleanReason(t *testing.T) {
	for reason, want := range map[string]string{
		"Evicted": "Evicted", "OOMKilled": "OOMKilled", "a_b,c:d": "a_b,c:d", "": "Other", "two words": "Other", "1st": "Other",
		"Timed\x1b[2J": "Other", "Out:": "Other", strings.Repeat("a", 129): "Other",
	} {
		if got := cleanReason(reason, "Other"); got != want {
			t.Errorf("cleanReason(%q) = %q, want %q", reason, got, want)
		}
	}
}
