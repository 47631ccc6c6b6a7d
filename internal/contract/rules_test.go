package contract_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

func TestExitCodeRuleRoundTrip(t *testing.T) {
	tests := map[string]contract.ExitCodeRule{
		"2=Succeed":      {In: []int{2}, Then: contract.ThenSucceed},
		"0,1,255=Finish": {In: []int{0, 1, 255}, Then: contract.ThenFinish},
		"124,137=Fail":   {In: []int{124, 137}, Then: contract.ThenFail},
		"75,75,-1=Retry": {In: []int{75, 75, -1}, Then: contract.ThenRetry},
	}
	for text, rule := range tests {
		if diff := cmp.Diff(text, rule.String()); diff != "" {
			t.Errorf("String: -want +got:\n%s", diff)
		}
		got, err := contract.ParseExitCodeRule(text)
		if diff := cmp.Diff(rule, got); diff != "" || err != nil {
			t.Errorf("ParseExitCodeRule(%q): %v, -want +got:\n%s", text, err, diff)
		}
	}
}

func TestParseExitCodeRuleRejects(t *testing.T) {
	tests := map[string]string{
		"":            `strconv.Atoi: parsing "": invalid syntax`,
		"=Succeed":    `strconv.Atoi: parsing "": invalid syntax`,
		"2,=Succeed":  `strconv.Atoi: parsing "": invalid syntax`,
		"two=Succeed": `strconv.Atoi: parsing "two": invalid syntax`,
		"2":           `"" is unknown: set it to Succeed, Finish, Fail or Retry`,
		"2=succeed":   `"succeed" is unknown: set it to Succeed, Finish, Fail or Retry`,
		"2=Succeed=":  `"Succeed=" is unknown: set it to Succeed, Finish, Fail or Retry`,
	}
	for text, want := range tests {
		got, err := contract.ParseExitCodeRule(text)
		if err == nil {
			t.Errorf("ParseExitCodeRule(%q) = %+v, want an error", text, got)
			continue
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("ParseExitCodeRule(%q): -want +got:\n%s", text, diff)
		}
	}
}

// The first rule that names a code decides. Once a rule says Retry, other codes have no retry.
func TestMeaningOf(t *testing.T) {
	rule := func(then string, in ...int) contract.ExitCodeRule { return contract.ExitCodeRule{In: in, Then: then} }
	tests := map[string]struct {
		rules   []contract.ExitCodeRule
		code    int
		want    string
		retried bool
	}{
		"no rules":                     {nil, 3, "", true},
		"another code":                 {[]contract.ExitCodeRule{rule(contract.ThenSucceed, 2)}, 3, "", true},
		"another code has Retry":       {[]contract.ExitCodeRule{rule(contract.ThenRetry, 2)}, 3, "", false},
		"Succeed":                      {[]contract.ExitCodeRule{rule(contract.ThenSucceed, 2, 3)}, 3, contract.ThenSucceed, false},
		"Finish":                       {[]contract.ExitCodeRule{rule(contract.ThenFinish, 3)}, 3, contract.ThenFinish, false},
		"Fail":                         {[]contract.ExitCodeRule{rule(contract.ThenFail, 3)}, 3, contract.ThenFail, false},
		"Retry":                        {[]contract.ExitCodeRule{rule(contract.ThenRetry, 3)}, 3, contract.ThenRetry, true},
		"the first one":                {[]contract.ExitCodeRule{rule(contract.ThenFail, 2, 3), rule(contract.ThenRetry, 3)}, 3, contract.ThenFail, false},
		"the first one, in the middle": {[]contract.ExitCodeRule{rule(contract.ThenFail, 2), rule(contract.ThenRetry, 3), rule(contract.ThenFail, 3)}, 3, contract.ThenRetry, true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := contract.MeaningOf(tc.code, tc.rules); got != tc.want {
				t.Errorf("MeaningOf is %q, want %q", got, tc.want)
			}
			if got := contract.IsRetried(tc.code, tc.rules); got != tc.retried {
				t.Errorf("IsRetried is %t, want %t", got, tc.retried)
			}
		})
	}
}

func TestHolds(t *testing.T) {
	in, notIn := []string{"a", "b"}, []string{"a", "b"}
	tests := map[string]struct {
		condition contract.Condition
		value     string
		isKnown   bool
		want      bool
	}{
		"in":                          {contract.Condition{Of: contract.OfOutput, In: in}, "b", true, true},
		"in, another value":           {contract.Condition{Of: contract.OfOutput, In: in}, "c", true, false},
		"in, no value":                {contract.Condition{Of: contract.OfOutput, In: in}, "", false, false},
		"notIn":                       {contract.Condition{Of: contract.OfOutput, NotIn: notIn}, "b", true, false},
		"notIn, another value":        {contract.Condition{Of: contract.OfOutput, NotIn: notIn}, "c", true, true},
		"notIn, no output":            {contract.Condition{Of: contract.OfOutput, NotIn: notIn}, "", false, true},
		"notIn, no exit code":         {contract.Condition{Of: contract.OfExitCode, NotIn: notIn}, "", false, false},
		"in, the empty value":         {contract.Condition{Of: contract.OfOutput, In: []string{""}}, "", true, true},
		"in, the empty value, but no": {contract.Condition{Of: contract.OfOutput, In: []string{""}}, "", false, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tc.condition.Holds(tc.value, tc.isKnown); got != tc.want {
				t.Errorf("Holds(%q, %t) is %t, want %t", tc.value, tc.isKnown, got, tc.want)
			}
		})
	}
}

// FuzzCondition proves that the agent reads what the webhook writes, whatever the texts, and that encoding/json reads the same.
func FuzzCondition(f *testing.F) {
	f.Add("lint", 1, "changed", "true", "", false)
	f.Add(`"quotes"`, 100, "[{,}]", "a\nb\\", "$(A) 日本 \u2028", true)
	f.Add("\xff", 7, "\x00", "", "}", true)
	f.Fuzz(func(t *testing.T, step string, number int, output, first, second string, not bool) {
		c := contract.Condition{Step: step, Number: number, Of: contract.OfOutput, Output: output, In: []string{first, second}}
		if not {
			c.In, c.NotIn = nil, c.In
		}
		var want contract.Condition // encoding/json replaces invalid UTF-8 by U+FFFD, too
		if err := json.Unmarshal([]byte(c.String()), &want); err != nil {
			t.Fatalf("String writes no JSON: %v\n%s", err, c)
		}
		got, err := contract.ParseCondition(c.String())
		if number < 1 {
			if err == nil {
				t.Errorf("ParseCondition(%s) accepts the number", c)
			}
			return
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("ParseCondition(%s): %v, -want +got:\n%s", c, err, diff)
		}
	})
}

// FuzzInput proves the same of inputs.
func FuzzInput(f *testing.F) {
	f.Add("SHA", "clone", 1, "sha", "", false)
	f.Add("A", `"q"`, 100, "k", "a\nb\\ $(A) 日本 \u2028", true)
	f.Add("A", "\xff", 7, "k", "\xff\x00", true)
	f.Fuzz(func(t *testing.T, name, step string, number int, output, value string, hasDefault bool) {
		i := contract.Input{Name: name, Step: step, Number: number, Output: output}
		if hasDefault {
			i.Default = &value
		}
		var want contract.Input
		if err := json.Unmarshal([]byte(i.String()), &want); err != nil {
			t.Fatalf("String writes no JSON: %v\n%s", err, i)
		}
		got, err := contract.ParseInput(i.String())
		if number < 1 || want.Name == "" || want.Output == "" {
			if err == nil {
				t.Errorf("ParseInput(%s) accepts it", i)
			}
			return
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("ParseInput(%s): %v, -want +got:\n%s", i, err, diff)
		}
	})
}

// Text that is no condition, or no input, is an error and never half of one.
func TestParseConditionAndInputReject(t *testing.T) {
	const condition, input = `{"step":"a","number":1,"of":"state","in":["Failed"]}`, `{"name":"A","step":"a","number":1,"output":"k"}`
	for _, text := range []string{
		"", "{", "{}", "null", "[]", condition[:len(condition)-1], condition + "x", `{"step":"a","number":0,"of":"state"}`, `{"step":"a","number":1,"of":"weather"}`, `{"step":"a","of":"state"}`,
	} {
		if got, err := contract.ParseCondition(text); err == nil {
			t.Errorf("ParseCondition(%q) = %+v, want an error", text, got)
		}
	}
	for _, text := range []string{"", "{", "{}", input[:len(input)-1], input + "x", `{"name":"A","number":1}`, `{"output":"A","number":1}`, `{"name":"A","output":"k","number":"1"}`} {
		if got, err := contract.ParseInput(text); err == nil {
			t.Errorf("ParseInput(%q) = %+v, want an error", text, got)
		}
	}
}
