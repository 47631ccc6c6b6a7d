package podspec

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// variableName matches the names of environment variables and the keys of outputs.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// ownVariables starts the names of the variables that the agent sets.
const ownVariables = "TASKFLOW_"

// loaders are variables that change which programs run, or what code they load. An output must not set one unless the step that reads it says so,
// because outputs can come from untrusted input.
var loaders = []string{
	"PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "BASHOPTS", "PS4", "PROMPT_COMMAND", "HOME", "SHELL", "EDITOR", "VISUAL", "PAGER",
	"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT", "PERL5LIB", "PERL5OPT", "PERLLIB", "PERL5DB", "RUBYLIB", "RUBYOPT",
	"NODE_OPTIONS", "NODE_PATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "LUA_PATH", "LUA_CPATH", "LUA_INIT",
	"GCONV_PATH", "LOCPATH", "NLSPATH", "HOSTALIASES", "RESOLV_HOST_CONF", "GETCONF_DIR", "MALLOC_TRACE", "GLIBC_TUNABLES",
	"GOFLAGS", "RUSTC_WRAPPER", "RUSTFLAGS", "MAKEFLAGS", "MAVEN_OPTS", "GRADLE_OPTS", "KUBECONFIG",
	"GIT_SSH", "GIT_SSH_COMMAND", "GIT_EXEC_PATH", "GIT_PAGER", "GIT_EDITOR", "GIT_EXTERNAL_DIFF", "GIT_TEMPLATE_DIR", "GIT_ASKPASS", "SSH_ASKPASS", "OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES", "R_PROFILE", "R_ENVIRON", "DOTNET_STARTUP_HOOKS", "CORECLR_PROFILER",
}

// loaderPrefixes start the names of such variables.
var loaderPrefixes = []string{"LD_", "DYLD_", "BASH_FUNC_", "npm_config_", "NPM_CONFIG_", "GIT_CONFIG"}

func isLoader(name string) bool {
	return slices.Contains(loaders, name) || slices.ContainsFunc(loaderPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// warnings returns a sentence about each variable of a step that the agent sets in its place.
func (l *stepList) warnings() []string {
	var all []string
	for i := range l.steps {
		step := &l.steps[i]
		for _, v := range step.env {
			isOfFinal := v.Name == contract.StatusVariable || v.Name == contract.FailedStepVariable
			if v.Name == contract.OutputVariable || step.options.Finally && isOfFinal {
				all = append(all, fmt.Sprintf("env of the step %q sets %s, and taskflow sets it, too: choose another name", step.name, v.Name))
			}
		}
	}
	return all
}

// checkRead rejects the name of a step whose end a step can't know, because it does not run before.
func (c checker) checkRead(i int, path, name string) error {
	other, isKnown := c.byName[name]
	switch {
	case !isKnown:
		return c.unknownStep(i, path, name)
	case other == i:
		return c.errorf(i, path, "the step %q can't read its own end: name a step that runs before it", name)
	case c.before[i].has(other):
		return nil
	case c.steps[other].options.Finally:
		return c.orderf(i, path, "%q is a final step, which runs later: name a step that runs before %q", name, c.names[i])
	case other > i:
		return c.orderf(i, path, "the step %q stands later in the list: move it before %q", name, c.names[i])
	}
	return c.errorf(i, path, "the step %q runs beside %q, not before it: add it to dependsOn of %[2]q", name, c.names[i])
}

// checkKey rejects what can't be the key of an output or the name of a variable.
func (c checker) checkKey(i int, path, key string) error {
	switch {
	case len(key) > maxText:
		return c.errorf(i, path, "the name has %d characters, and it may have %d: use a shorter one", len(key), maxText)
	case !variableName.MatchString(key):
		return c.errorf(i, path, "%s can't be the name of a variable: use letters, digits and _, and don't begin with a digit", quoteShort(key))
	}
	return nil
}

// checkInputs checks the inputs of step i.
func (c checker) checkInputs(i int) error {
	inputs := c.steps[i].options.Inputs
	if len(inputs) > maxInputs {
		return c.errorf(i, ".inputs", "there are %d inputs, and a step may have %d: read the files of the outputs", len(inputs), maxInputs)
	}
	seen := map[string]int{}
	for k, input := range inputs {
		path := fmt.Sprintf(".inputs[%d]", k)
		if err := c.checkRead(i, path+".step", input.Step); err != nil {
			return err
		}
		if input.Output == "" {
			return c.errorf(i, path+".output", "it is missing: set it to the key of an output of %q", input.Step)
		}
		if err := c.checkKey(i, path+".output", input.Output); err != nil {
			return err
		}
		if err := c.checkVariable(i, path, input); err != nil {
			return err
		}
		variable := cmp.Or(input.Name, input.Output)
		if first, isTwice := seen[variable]; isTwice {
			return c.errorf(i, path, "inputs[%d] sets the variable %s, too: give one of them another name", first, variable)
		}
		seen[variable] = k
	}
	return nil
}

// checkVariable checks the variable that an input sets.
func (c checker) checkVariable(i int, path string, input v1alpha1.Input) error {
	variable, field := input.Name, path+".name"
	if variable == "" {
		variable, field = input.Output, path+".output"
	} else if err := c.checkKey(i, field, variable); err != nil {
		return err
	}
	isSet := func(v corev1.EnvVar) bool { return v.Name == variable }
	switch {
	case input.Name == "" && isLoader(variable):
		return c.errorf(i, field, "the variable %s changes how programs load or run: set name to another variable, or to %[1]s if you want that", variable)
	case strings.HasPrefix(variable, ownVariables):
		return c.errorf(i, field, "variables that start with %s are reserved for taskflow: set name to another variable", ownVariables)
	case slices.ContainsFunc(c.steps[i].env, isSet):
		return c.errorf(i, path, "%s sets the variable %s, too: remove one of them", c.setBy(i, variable), variable)
	case strings.ContainsRune(ptr.Deref(input.Default, ""), 0):
		return c.errorf(i, path+".default", "a variable can't have a NUL character: remove it")
	}
	return nil
}

// setBy returns what sets a variable of step i.
func (c checker) setBy(i int, variable string) string {
	own := fmt.Sprintf("env of the step %q", c.names[i])
	if c.task == nil {
		return own
	}
	has := func(env []corev1.EnvVar) bool {
		return slices.ContainsFunc(env, func(v corev1.EnvVar) bool { return v.Name == variable })
	}
	spec := &c.task.Spec
	isSetByStep := slices.ContainsFunc(spec.Steps, func(step v1alpha1.Step) bool { return step.Name == c.names[i] && has(step.Env) })
	var field string
	switch {
	case isSetByStep:
		return own
	case spec.StepTemplate != nil && has(spec.StepTemplate.Env):
		field = "spec.stepTemplate.env"
	case slices.ContainsFunc(spec.Params, func(param v1alpha1.Param) bool { return param.Name == variable }):
		field = "spec.params"
	default:
		return own
	}
	if c.path == stepsPath {
		field += fmt.Sprintf(" of the Task %q", c.task.Name)
	}
	return field
}

// checkWhen checks the conditions of step i.
func (c checker) checkWhen(i int) error {
	conditions := c.steps[i].options.When
	if len(conditions) > maxConditions {
		return c.errorf(i, ".when", "there are %d conditions, and a step may have %d: test them in an earlier step, and write an output", len(conditions), maxConditions)
	}
	for k, condition := range conditions {
		path := fmt.Sprintf(".when[%d]", k)
		if err := c.checkRead(i, path+".step", condition.Step); err != nil {
			return err
		}
		if err := c.checkCondition(i, path, condition); err != nil {
			return err
		}
		if err := c.checkHolds(i, path, condition); err != nil {
			return err
		}
	}
	return nil
}

func (c checker) checkCondition(i int, path string, condition v1alpha1.Condition) error {
	isOutput := condition.Output != ""
	tests := 0
	for _, isTested := range []bool{condition.State != nil, condition.ExitCode != nil, isOutput} {
		if isTested {
			tests++
		}
	}
	hasValues := len(condition.In)+len(condition.NotIn) > 0
	switch {
	case tests == 0 && hasValues:
		return c.errorf(i, path, "in and notIn test an output, and output is missing: set output to its key")
	case tests == 0:
		return c.errorf(i, path, "the condition tests nothing: set state, exitCode or output")
	case tests > 1:
		return c.errorf(i, path, "the condition has several tests: write a condition for each of state, exitCode and output")
	case !isOutput && hasValues:
		return c.errorf(i, path, "in and notIn beside state or exitCode belong to an output: move them into state or exitCode")
	case condition.State != nil:
		return c.checkStates(i, path+".state", *condition.State)
	case condition.ExitCode != nil:
		if err := c.checkInNotIn(i, path+".exitCode", len(condition.ExitCode.In), len(condition.ExitCode.NotIn), maxExitCodes); err != nil {
			return err
		}
		return cmp.Or(c.checkCodes(i, path+".exitCode.in", condition.ExitCode.In), c.checkCodes(i, path+".exitCode.notIn", condition.ExitCode.NotIn))
	}
	if err := c.checkKey(i, path+".output", condition.Output); err != nil {
		return err
	}
	return c.checkInNotIn(i, path, len(condition.In), len(condition.NotIn), maxOutputValues)
}

// checkInNotIn rejects a test without values or with both kinds.
func (c checker) checkInNotIn(i int, path string, in, notIn, most int) error {
	switch {
	case in == 0 && notIn == 0:
		return c.errorf(i, path, "there is no value to compare with: set in or notIn")
	case in > 0 && notIn > 0:
		return c.errorf(i, path, "in and notIn are both set: write a condition for each of them")
	case in > most || notIn > most:
		return c.errorf(i, path, "there are %d values, and there may be %d", max(in, notIn), most)
	}
	return nil
}

// checkStates checks a test of the state of a step.
func (c checker) checkStates(i int, path string, test v1alpha1.StateTest) error {
	ends := []v1alpha1.StepState{v1alpha1.StepSucceeded, v1alpha1.StepFailed, v1alpha1.StepSkipped}
	if err := c.checkInNotIn(i, path, len(test.In), len(test.NotIn), len(ends)); err != nil {
		return err
	}
	for list, states := range map[string][]v1alpha1.StepState{"in": test.In, "notIn": test.NotIn} {
		for n, state := range states {
			if !slices.Contains(ends, state) {
				return c.errorf(i, fmt.Sprintf("%s.%s[%d]", path, list, n), "%s is no state in which a step ends: set it to Succeeded, Failed or Skipped", quoteShort(string(state)))
			}
		}
	}
	return nil
}
