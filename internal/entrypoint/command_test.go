package entrypoint_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/entrypoint"
)

// TestFill proves that a filled container runs what the container runtime would have run: the image's words are escaped, the container's
// own args are not.
func TestFill(t *testing.T) {
	type result struct {
		Command, Args []string
	}
	cases := map[string]struct {
		image entrypoint.Command
		args  []string
		want  result
	}{
		"ENTRYPOINT": {
			image: entrypoint.Command{Entrypoint: []string{"/app", "run"}},
			want:  result{Command: []string{"/app", "run"}},
		},
		"ENTRYPOINT, with args": {
			image: entrypoint.Command{Entrypoint: []string{"/app", "run"}},
			args:  []string{"--fast"},
			want:  result{Command: []string{"/app", "run"}, Args: []string{"--fast"}},
		},
		"CMD": {
			image: entrypoint.Command{Cmd: []string{"sh", "-l"}},
			want:  result{Command: []string{"sh", "-l"}},
		},
		"CMD, with args in its place": {
			image: entrypoint.Command{Cmd: []string{"sh", "-l"}},
			args:  []string{"env"},
			want:  result{Command: []string{"env"}},
		},
		"both": {
			image: entrypoint.Command{Entrypoint: []string{"/app"}, Cmd: []string{"--help"}},
			want:  result{Command: []string{"/app"}, Args: []string{"--help"}},
		},
		"both, with args in the place of CMD": {
			image: entrypoint.Command{Entrypoint: []string{"/app"}, Cmd: []string{"--help"}},
			args:  []string{"--fast"},
			want:  result{Command: []string{"/app"}, Args: []string{"--fast"}},
		},
		"both, with empty args": {
			image: entrypoint.Command{Entrypoint: []string{"/app"}, Cmd: []string{"--help"}},
			args:  []string{},
			want:  result{Command: []string{"/app"}, Args: []string{"--help"}},
		},
		"neither": {},
		"neither, with args": {
			args: []string{"/app"},
			want: result{Command: []string{"/app"}},
		},
		"$ from the image is escaped wherever it stands": {
			image: entrypoint.Command{Entrypoint: []string{"$(HOME)/app", "$"}, Cmd: []string{"$$", "a$b", "$(", "costs 5$"}},
			want:  result{Command: []string{"$$(HOME)/app", "$$"}, Args: []string{"$$$$", "a$$b", "$$(", "costs 5$$"}},
		},
		"$ in the user's args is the user's": {
			image: entrypoint.Command{Entrypoint: []string{"/app"}, Cmd: []string{"$(HOME)"}},
			args:  []string{"$(TARGET)", "$$", "$"},
			want:  result{Command: []string{"/app"}, Args: []string{"$(TARGET)", "$$", "$"}},
		},
		"empty words stay": {
			image: entrypoint.Command{Entrypoint: []string{"/app", ""}, Cmd: []string{""}},
			want:  result{Command: []string{"/app", ""}, Args: []string{""}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			command, args := c.image.Fill(c.args)
			if diff := cmp.Diff(c.want, result{command, args}); diff != "" {
				t.Errorf("Fill(%q) (-want +got):\n%s", c.args, diff)
			}
		})
	}
}

// TestFillSurvivesExpansion proves, for every text of up to six of the characters that matter to the kubelet's expansion, that a process
// gets the image's words unchanged, whatever variables the container has.
func TestFillSurvivesExpansion(t *testing.T) {
	const longest = 6
	alphabet := []string{"$", "(", ")", "A", "é"}
	variables := map[string]string{"": "EMPTY", "A": "EXPANDED", "AA": "$(A)", "é": "EXPANDED", "$": "EXPANDED", "(": "EXPANDED"}

	texts := []string{""}
	last := texts
	for range longest {
		var longer []string
		for _, text := range last {
			for _, character := range alphabet {
				longer = append(longer, text+character)
			}
		}
		texts = append(texts, longer...)
		last = longer
	}
	command, args := entrypoint.Command{Entrypoint: texts, Cmd: texts}.Fill(nil)
	for name, words := range map[string][]string{"ENTRYPOINT": command, "CMD": args} {
		var got []string
		for _, word := range words {
			got = append(got, expand(word, variables))
		}
		if diff := cmp.Diff(texts, got); diff != "" {
			t.Errorf("%s after the kubelet's expansion (-want +got):\n%s", name, diff)
		}
	}
}

// TestExpand checks the reference implementation below with cases of the kubelet's own test,
// k8s.io/kubernetes/third_party/forked/golang/expansion/expand_test.go.
func TestExpand(t *testing.T) {
	variables := map[string]string{"VAR_A": "A", "VAR_B": "B", "VAR_C": "C", "VAR_REF": "$(VAR_A)", "VAR_EMPTY": ""}
	cases := map[string]string{
		"$(VAR_A)-$(VAR_A)":  "A-A",
		"___$(VAR_B)___":     "___B___",
		"$$(VAR_B)_$(VAR_A)": "$(VAR_B)_A",
		"f000-$$VAR_A":       "f000-$VAR_A",
		"foo\\$(VAR_C)bar":   "foo\\Cbar",
		"$(VAR_A$(VAR_B))":   "$(VAR_A$(VAR_B))",
		"$(VAR_REF)":         "$(VAR_A)",
		"foo$(VAR_EMPTY)bar": "foobar",
		"foo$(VAR_Awhoops!":  "foo$(VAR_Awhoops!",
		"$?_boo_$!":          "$?_boo_$!",
		"$(VAR_DNE)":         "$(VAR_DNE)",
		"$$$$$$(VAR_A)":      "$$$(VAR_A)",
		"$$$$$$$(VAR_A)":     "$$$A",
		"${VAR_A}":           "${VAR_A}",
		"$(VAR_C)_______$(":  "C_______$(",
		"$(VAR_A)foobarzab$": "Afoobarzab$",
		"$($($($($--foo$(":   "$($($($($--foo$(",
		"$(foo$$var)":        "$(foo$$var)",
		"$£FOO":              "$£FOO",
	}
	for input, want := range cases {
		if diff := cmp.Diff(want, expand(input, variables)); diff != "" {
			t.Errorf("expand(%q) (-want +got):\n%s", input, diff)
		}
	}
}

// expand does what the kubelet does with each word of a container's command and args, after
// k8s.io/kubernetes/third_party/forked/golang/expansion/expand.go.
func expand(input string, variables map[string]string) string {
	var expanded strings.Builder
	for {
		before, after, found := strings.Cut(input, "$")
		expanded.WriteString(before)
		switch reference, rest, closed := strings.Cut(strings.TrimPrefix(after, "("), ")"); {
		case !found:
			return expanded.String()
		case after == "": // a $ at the very end
			return expanded.String() + "$"
		case strings.HasPrefix(after, "$"): // an escaped $
			expanded.WriteString("$")
			input = after[1:]
		case !strings.HasPrefix(after, "("):
			_, size := utf8.DecodeRuneInString(after)
			expanded.WriteString("$" + after[:size])
			input = after[size:]
		case !closed:
			expanded.WriteString("$(")
			input = after[1:]
		default:
			value, ok := variables[reference]
			if !ok {
				value = "$(" + reference + ")"
			}
			expanded.WriteString(value)
			input = rest
		}
	}
}
