//go:build linux

package agent

import (
	"bufio"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestParseOutputs(t *testing.T) {
	tests := map[string]struct {
		text string
		want string // the keys with their values, each with a line feed
		err  string
	}{
		"nothing":                           {},
		"only blank lines and comments":     {text: "\n \t\r\n# a comment\n  # another\n"},
		"a value":                           {text: "A=1\n", want: "A=1\n"},
		"without a line feed at the end":    {text: "A=1", want: "A=1\n"},
		"several":                           {text: "B=2\nA=1\n\n_c9=3\n", want: "B=2\nA=1\n_c9=3\n"},
		"white space before the key":        {text: " \tA=1\n", want: "A=1\n"},
		"an empty value":                    {text: "A=\n", want: "A=\n"},
		"an empty value in quotes":          {text: "A=''\n", want: "A=\n"},
		"a value in quotes":                 {text: "A='1 # \"$x\" \\'\n", want: "A=1 # \"$x\" \\\n"},
		"a comment behind the quote":        {text: "A='1' # one\nB='2'#two\nC='3' \t\n", want: "A=1\nB=2\nC=3\n"},
		"several lines in quotes":           {text: "A='1\n\n B=2\n# 3'\nC=4", want: "A=1\n\n B=2\n# 3\nC=4\n"},
		"the rest of the line is literal":   {text: "A=it's # \"1\" $x \\ = ' \n", want: "A=it's # \"1\" $x \\ = ' \n"},
		"a line end of Windows":             {text: "A=1\r\nB='2\r\n3'\r\nC='4\r'\n", want: "A=1\nB=2\n3\nC=4\r\n"},
		"a key twice":                       {text: "A=1\nB=2\nA=3\n", want: "A=3\nB=2\n"},
		"other scripts":                     {text: "A=日本 😀\n", want: "A=日本 😀\n"},
		"no =":                              {text: "A=1\ndone\n", err: `line 2 of $TASKFLOW_OUTPUT has no "=": write KEY=value, and a value of several lines in single quotes`},
		"white space before =":              {text: "A =1", err: `line 1 of $TASKFLOW_OUTPUT has white space around "=": write KEY=value`},
		"white space behind =":              {text: "A= 1", err: `line 1 of $TASKFLOW_OUTPUT has white space around "=": write KEY=value`},
		"white space behind =, and a quote": {text: "A=\t'1'", err: `line 1 of $TASKFLOW_OUTPUT has white space around "=": write KEY=value`},
		"a double quote":                    {text: "\n\nA=\"1\"\n", err: `line 3 of $TASKFLOW_OUTPUT begins its value with a double quote: write KEY=value, or KEY='value' with single quotes`},
		"a key with a dash":                 {text: "a-b=1", err: `line 1 of $TASKFLOW_OUTPUT has the key "a-b", which is no variable name: use letters, digits and underscores`},
		"a key that begins with a digit":    {text: "1a=1", err: `line 1 of $TASKFLOW_OUTPUT has the key "1a", which is no variable name: use letters, digits and underscores`},
		"a key in another script":           {text: "é=1", err: `line 1 of $TASKFLOW_OUTPUT has the key "é", which is no variable name: use letters, digits and underscores`},
		"no key":                            {text: "=1", err: `line 1 of $TASKFLOW_OUTPUT has the key "", which is no variable name: use letters, digits and underscores`},
		"export":                            {text: "export A=1", err: `line 1 of $TASKFLOW_OUTPUT has the key "export A", which is no variable name: use letters, digits and underscores`},
		"an open quote":                     {text: "A='1\n2\n", err: `line 1 of $TASKFLOW_OUTPUT begins a value whose single quote is not closed: close it`},
		"text behind the quote":             {text: "A='1'2\n", err: `line 1 of $TASKFLOW_OUTPUT has text behind the closing quote: put only a comment there, and no single quote into a value in single quotes`},
		"the quotes of a shell":             {text: `A='it'\''s'`, err: `line 1 of $TASKFLOW_OUTPUT has text behind the closing quote: put only a comment there, and no single quote into a value in single quotes`},
		"a zero byte":                       {text: "A=\x00\n", err: `line 1 of $TASKFLOW_OUTPUT has a zero byte: encode binary data, for example with base64`},
		"no UTF-8":                          {text: "A=1\nB='\n\xff'\n", err: `line 2 of $TASKFLOW_OUTPUT is not UTF-8 text: encode binary data, for example with base64`},
	}
	for what, tc := range tests {
		t.Run(what, func(t *testing.T) {
			all, err := parseOutputs(tc.text, "")
			message := ""
			if err != nil {
				message = err.Error()
			}
			if diff := cmp.Diff(tc.err, message); diff != "" {
				t.Errorf("error: -want +got:\n%s", diff)
			}
			var got strings.Builder
			for _, key := range all.keys {
				got.WriteString(key + "=" + all.values[key] + "\n")
			}
			if diff := cmp.Diff(tc.want, got.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// FuzzOutputs compares with Kubernetes: each file that its parser accepts as a whole has the same values here. Exceptions are errors here: keys that
// are no variable names, white space behind "=", zero bytes and what is not UTF-8. Whatever the text, the keys are variable names.
func FuzzOutputs(f *testing.F) {
	for _, text := range []string{
		"", "A=1\n", "A='1'\n", "A='1' # c\nB='2\n3'\n\n#\n", " \tA=''\r\n", "A= 'x'\n", "A ='x'\n", "A=\"x\"", "A='x'y", "A='x\r\ny'\r\n", "A='\x00'", "A='\xff'", "a.b='1'", "A='1'\nA='2'\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseOutputs(text, "")
		for _, key := range all.keys {
			if !isVariableName(key) || strings.ContainsRune(all.values[key], 0) || !utf8.ValidString(all.values[key]) {
				t.Errorf("%q has the key %q with the value %q", text, key, all.values[key])
			}
		}
		want, keys, accepts := ofKubernetes(text)
		if !accepts {
			return
		}
		isException := strings.ContainsRune(text, 0) || !utf8.ValidString(text) || slices.ContainsFunc(keys, func(key string) bool { return !isVariableName(key) })
		if isException && err != nil {
			return
		}
		if err != nil {
			t.Fatalf("Kubernetes accepts %q, and the agent says: %v", text, err)
		}
		for key, value := range want {
			if one, err := parseOutputs(text, key); err != nil || len(one.keys) != 1 || one.values[key] != value {
				t.Errorf("%q has only the values %q for %s: %v", text, one, key, err)
			}
			if all.values[key] != value {
				t.Errorf("%q has the value %q for %s, and for Kubernetes %q", text, all.values[key], key, value)
			}
		}
	})
}

// ofKubernetes returns the values that ParseEnv in pkg/kubelet/util/env of Kubernetes 1.37 finds, with the last one of a key that is there twice:
// ParseEnv takes one key, and returns its first value. The text is not accepted if ParseEnv fails for a key that is not there, or if there is
// white space behind "=".
func ofKubernetes(text string) (values map[string]string, keys []string, accepts bool) {
	values = map[string]string{}
	scanner := bufio.NewScanner(strings.NewReader(text))
	for scanner.Scan() {
		line := strings.TrimLeft(scanner.Text(), " \t")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if !found || name == "" || strings.TrimRight(name, " \t") != name || !strings.HasPrefix(value, "'") {
			return nil, nil, false
		}
		var b strings.Builder
		for rest := value[1:]; ; {
			closing := strings.Index(rest, "'")
			if closing >= 0 {
				b.WriteString(rest[:closing])
				after := strings.TrimLeft(rest[closing+1:], " \t")
				if after != "" && !strings.HasPrefix(after, "#") {
					return nil, nil, false
				}
				break
			}
			b.WriteString(rest + "\n")
			if !scanner.Scan() {
				return nil, nil, false
			}
			rest = scanner.Text()
		}
		keys = append(keys, name)
		values[name] = b.String()
	}
	return values, keys, scanner.Err() == nil
}

// A shell that reads values in single quotes finds the same.
func TestOutputsAreWhatAShellReads(t *testing.T) {
	t.Parallel()
	const text = " \tA='1 $HOME \\ \"'\nB='2\n# 3\n' # a comment\n\n# another\nC=''\nA='4'\n"
	all, err := parseOutputs(text, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range all.keys {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", text+`printf %s "$`+key+`"`).Output()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(out), all.values[key]); diff != "" {
			t.Errorf("%s: -want +got:\n%s", key, diff)
		}
	}
}

// A file of the maximum size is parsed in a moment, whatever it has.
func BenchmarkOutputs(b *testing.B) {
	var keys strings.Builder
	for i := 0; keys.Len() < maxOutputs-20; i++ {
		keys.WriteString("K" + strconv.Itoa(i) + "=1\n")
	}
	for name, text := range map[string]string{
		"keys":  keys.String(),
		"lines": "A='" + strings.Repeat("\n", maxOutputs-4) + "'",
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := parseOutputs(text, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
