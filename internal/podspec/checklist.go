package podspec

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// stepList is a sequence as a Task or a Pod has it, and where it stands there.
type stepList struct {
	path  string
	steps []listedStep
	// isChosen means that a Pod that names a Task chooses and orders the steps itself.
	isChosen bool
	// task is the Task that the steps are from, as its author wrote it. It is nil for a Pod that names none.
	task *v1alpha1.Task
	// restartPolicy is the Pod's, and restartPath is where it is set.
	restartPolicy corev1.RestartPolicy
	restartPath   string
}

// listedStep is a step of a stepList.
type listedStep struct {
	name    string
	options v1alpha1.StepOptions
	// env are the variables that the container sets itself.
	env []corev1.EnvVar
	// ofTask is where the Task that a Pod names has the step, or empty. own are the fields that the Pod sets over it.
	ofTask string
	own    []string
}

func (l *stepList) names() []string {
	names := make([]string, len(l.steps))
	for i := range l.steps {
		names[i] = l.steps[i].name
	}
	return names
}

// options returns the options of the steps as OptionsAnnotation has them.
func (l *stepList) options() contract.Options {
	options := contract.Options{}
	for i := range l.steps {
		if o := toOptions(l.steps[i].options); !o.IsZero() {
			options[l.steps[i].name] = o
		}
	}
	return options
}

// errorf returns a sentence about a field of step i, such as .dependsOn[0].
func (l *stepList) errorf(i int, field, format string, args ...any) error {
	path := fmt.Sprintf("%s[%d]", l.path, i)
	if l.isOfTask(i, field) {
		path = l.steps[i].ofTask
	}
	return fmt.Errorf("%s%s: %s", path, field, fmt.Sprintf(format, args...))
}

// orderf is errorf for a sentence about the place of step i in the list.
func (l *stepList) orderf(i int, field, format string, args ...any) error {
	if l.isChosen && l.isOfTask(i, field) {
		return fmt.Errorf("%s[%d]: %s", l.path, i, fmt.Sprintf(format, args...))
	}
	return l.errorf(i, field, format, args...)
}

// isOfTask reports whether a field of step i is from the Task that a Pod names.
func (l *stepList) isOfTask(i int, field string) bool {
	end := strings.IndexAny(field[1:], ".[") + 1
	if end == 0 {
		end = len(field)
	}
	return l.steps[i].ofTask != "" && !slices.Contains(l.steps[i].own, field[1:end])
}

// The API server applies the first of these bounds to Tasks, by the same limits (api/v1alpha1).
const (
	maxRetries                             = 100
	leastTimeout, mostTimeout              = time.Millisecond, 99999 * time.Hour
	maxPredecessors, maxInputs             = 100, 100
	maxConditions, maxRules                = 20, 20
	maxExitCodes, maxOutputValues, maxText = 256, 100, 253
)

// check rejects options that can't work. Its errors are one sentence for the user, with the path and the remedy.
func (l *stepList) check() error {
	if err := l.checkFinally(); err != nil {
		return err
	}
	byName := make(map[string]int, len(l.steps))
	for i := range l.steps {
		byName[l.steps[i].name] = i
	}
	for i := range l.steps {
		if err := l.checkDependsOn(i, byName); err != nil {
			return err
		}
	}
	names := l.names()
	c := checker{stepList: l, names: names, byName: byName, before: ancestryOf(Plan(names, l.options()))}
	for i := range l.steps {
		for _, check := range []func(int) error{c.checkRuns, c.checkExitCodes, c.checkWhen, c.checkInputs, c.checkRestart, c.checkRetry} {
			if err := check(i); err != nil {
				return err
			}
		}
	}
	if size := len(l.options().Marshal()); size > maxOptions {
		return fmt.Errorf("%s: when, inputs and exitCodes of all steps take %d bytes, and they may take %d: the Pod has them in an annotation; use fewer or shorter values",
			l.path, size, maxOptions)
	}
	return nil
}

// maxOptions is the most bytes of OptionsAnnotation. All annotations of a Pod may take 256 KiB together.
const maxOptions = 128 << 10

// checker checks what refers to other steps, once the plan is known to be valid.
type checker struct {
	*stepList
	names  []string
	byName map[string]int
	before ancestry
}

// checkFinally rejects final steps that don't stand at the end of the list, and a list of final steps only.
func (l *stepList) checkFinally() error {
	for i := range l.steps {
		switch isFinal := l.steps[i].options.Finally; {
		case isFinal && l.steps[i].options.DependsOn != nil:
			return l.errorf(i, ".dependsOn", "the final step %q runs after all other steps: remove dependsOn", l.steps[i].name)
		case i > 0 && l.steps[i-1].options.Finally && !isFinal:
			return l.orderf(i-1, ".finally", "the final step %q stands before the step %q, which is not final: move it to the end of the list",
				l.steps[i-1].name, l.steps[i].name)
		}
	}
	if len(l.steps) > 0 && l.steps[0].options.Finally {
		if l.isChosen && l.isOfTask(0, ".finally") {
			return fmt.Errorf("%s names final steps only: name the steps that do the work, too", l.path)
		}
		return l.errorf(0, ".finally", "all steps are final: remove finally from the steps that do the work")
	}
	return nil
}

func (l *stepList) checkDependsOn(i int, byName map[string]int) error {
	step := &l.steps[i]
	if count := len(step.options.DependsOn); count > maxPredecessors {
		return l.errorf(i, ".dependsOn", "there are %d names, and a step may have %d: put a step between them", count, maxPredecessors)
	}
	for k, name := range step.options.DependsOn {
		path := fmt.Sprintf(".dependsOn[%d]", k)
		before, isKnown := byName[name]
		switch {
		case !isKnown:
			return l.unknownStep(i, path, name)
		case before == i:
			return l.errorf(i, path, "the step %q can't depend on itself: remove the name", name)
		case l.steps[before].options.Finally:
			return l.errorf(i, path, "%q is a final step, which runs after all others: remove the name", name)
		case before > i:
			return l.orderf(i, path, "the step %q stands later in the list: move it before %q", name, step.name)
		case slices.Index(step.options.DependsOn, name) < k:
			return l.errorf(i, path, "%q is named twice: remove one", name)
		}
	}
	return nil
}

// unknownStep returns the sentence about the name of a step that the list doesn't have.
func (l *stepList) unknownStep(i int, path, name string) error {
	others := l.names()
	others = slices.Delete(others, i, i+1)
	switch nearest, isNear := nearest(name, others); {
	case name == "":
		return l.errorf(i, path, "the name of a step is missing: set it to the name of a step that stands earlier in the list")
	case l.isOfTask(i, path):
		return l.errorf(i, path, "the Pod leaves out the step %q: add it to the annotation %s, or override the field there", name, contract.StepsAnnotation)
	case isNear:
		return l.errorf(i, path, "there is no step %s in the list: did you mean %q?", quoteShort(name), nearest)
	}
	return l.errorf(i, path, "there is no step %s in the list: add it, or fix the name", quoteShort(name))
}

// checkRuns checks how often and how long a command runs.
func (c checker) checkRuns(i int) error {
	o := &c.steps[i].options
	switch {
	case o.Timeout != nil && (o.Timeout.Duration < leastTimeout || o.Timeout.Duration > mostTimeout):
		return c.errorf(i, ".timeout", "%s must be between 1ms and 99999h: change it, or remove it for no limit", o.Timeout.Duration)
	case o.Retries != nil && (*o.Retries < 0 || *o.Retries > maxRetries):
		return c.errorf(i, ".retries", "%d must be between 0 and %d", *o.Retries, maxRetries)
	case !slices.Contains([]v1alpha1.OnError{"", v1alpha1.OnErrorStop, v1alpha1.OnErrorContinue, v1alpha1.OnErrorFailAtEnd}, o.OnError):
		return c.errorf(i, ".onError", "%s is unknown: set it to Stop, Continue or FailAtEnd", quoteShort(string(o.OnError)))
	}
	return nil
}

// checkRestart rejects what a failure may mean if the kubelet restarts a failed step until it succeeds.
func (c checker) checkRestart(i int) error {
	if c.restartPolicy != corev1.RestartPolicyOnFailure {
		return nil
	}
	refuse := func(field, value string) error {
		return c.errorf(i, field, "%s has no effect with restartPolicy: OnFailure, which restarts a failed step until it succeeds: set %s to Never",
			value, c.restartPath)
	}
	o := &c.steps[i].options
	if o.OnError == v1alpha1.OnErrorContinue || o.OnError == v1alpha1.OnErrorFailAtEnd {
		return refuse(".onError", string(o.OnError))
	}
	for k, rule := range o.ExitCodes {
		if rule.Then == v1alpha1.ExitCodeFail || rule.Then == v1alpha1.ExitCodeRetry {
			return refuse(fmt.Sprintf(".exitCodes[%d].then", k), string(rule.Then))
		}
	}
	return nil
}

// checkRetry rejects a rule that allows retries of a step without retries.
func (c checker) checkRetry(i int) error {
	o := &c.steps[i].options
	for k, rule := range o.ExitCodes {
		if rule.Then == v1alpha1.ExitCodeRetry && ptr.Deref(o.Retries, 0) == 0 {
			return c.errorf(i, fmt.Sprintf(".exitCodes[%d].then", k), "Retry has no effect without retries: set retries of the step %q, or remove the rule", c.names[i])
		}
	}
	return nil
}

// checkExitCodes checks the rules for exit codes.
func (c checker) checkExitCodes(i int) error {
	o := &c.steps[i].options
	if count := len(o.ExitCodes); count > maxRules {
		return c.errorf(i, ".exitCodes", "there are %d rules, and a step may have %d: name several codes in one rule", count, maxRules)
	}
	seen := map[int32]bool{}
	for k, rule := range o.ExitCodes {
		path := fmt.Sprintf(".exitCodes[%d]", k)
		switch {
		case len(rule.In) == 0:
			return c.errorf(i, path+".in", "there is no exit code: set it to a list such as [2, 3]")
		case rule.Then == "":
			return c.errorf(i, path+".then", "it is missing: set it to Succeed, Finish, Fail or Retry")
		case !slices.Contains([]v1alpha1.ExitCodeAction{v1alpha1.ExitCodeSucceed, v1alpha1.ExitCodeFinish, v1alpha1.ExitCodeFail, v1alpha1.ExitCodeRetry}, rule.Then):
			return c.errorf(i, path+".then", "%s is unknown: set it to Succeed, Finish, Fail or Retry", quoteShort(string(rule.Then)))
		case rule.Then == v1alpha1.ExitCodeFinish && o.Finally:
			return c.errorf(i, path+".then", "a final step can't finish the sequence, which is over when it runs: set it to Succeed")
		}
		if err := c.checkCodes(i, path+".in", rule.In); err != nil {
			return err
		}
		for n, code := range rule.In {
			if seen[code] {
				return c.errorf(i, fmt.Sprintf("%s.in[%d]", path, n), "%d is named twice, and its first rule applies: remove one", code)
			}
			seen[code] = true
		}
	}
	return nil
}

// checkCodes checks a list of exit codes.
func (c checker) checkCodes(i int, path string, codes []int32) error {
	if len(codes) > maxExitCodes {
		return c.errorf(i, path, "there are %d exit codes, and there may be %d", len(codes), maxExitCodes)
	}
	for n, code := range codes {
		if code < 0 || code > 255 {
			return c.errorf(i, fmt.Sprintf("%s[%d]", path, n), "%d is no exit code: set it to a number from 0 to 255", code)
		}
	}
	return nil
}
