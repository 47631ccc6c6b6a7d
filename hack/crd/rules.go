package main

import (
	"fmt"
	"strconv"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// rules are the CEL rules that validate a Task, by the field that they are added to, which is self in the rule. A path through a list means
// each element of the list. "" is the Task itself.
//
// The API server evaluates all rules whenever the status of a Task is written, too. For each field that a rule reads, it copies the schemas of
// all fields beside it: some thirty for a container. So rules read as little as possible:
//
//   - A rule for one field of a step, a sidecar or the template is added to that field.
//   - A rule that compares such fields is the Task's own. It reads none of them once the Task has a Pod, because they are immutable from then on.
//     The rule that makes them immutable reads them only if status.conditions and status.steps are unchanged: no request changes both spec and
//     status. A Task's own rule names in fieldPath the field that the API server reports.
//
// The rules must also stay below the API server's cost limit, including the limit of Kubernetes 1.30, which assumes that a value of unknown size
// is large. So messages name a step by its index in the list, whose names have a maximum length. The rule for a timeout, which counts as a
// string of any length, uses only functions whose cost does not depend on the length.
var rules = map[string]apiextensionsv1.ValidationRules{
	"": {
		{
			Rule:    "self.metadata.name.size() <= 63",
			Message: "metadata.name must have at most 63 characters: it becomes a label of the Task's Pod",
		},
		hasUniqueNames,
		everyStepHasImage,
		everySidecarHasImage,
		everyStep("!has(%s.script) || !has(%[1]s.command)", "has script and command: set only one of them"),
		{
			Rule:      hasPod + " || !has(self.spec.timeout) || !self.spec.?template.?spec.?activeDeadlineSeconds.hasValue()",
			FieldPath: ".spec",
			Message:   "timeout and template.spec.activeDeadlineSeconds have the same meaning: set only timeout",
		},
		continuesOnlyWithoutRestart("Continue"),
		continuesOnlyWithoutRestart("FailAtEnd"),
		isImmutable,
	},
	"spec": {
		{
			Rule:    "!(has(self.cancel) && self.cancel && has(self.suspend) && self.suspend)",
			Message: "cancel and suspend are both true: set only one of them",
		},
		isForGood("cancel"),
		{
			Rule:    "!(has(self.cancelFinally) && self.cancelFinally) || has(self.cancel) && self.cancel",
			Message: "cancelFinally takes effect only together with cancel: set cancel: true, too",
		},
		isForGood("cancelFinally"),
	},
	"spec.timeout":              durationFrom("1s", "timeout"),
	"spec.finallyTimeout":       durationFrom("1s", "finallyTimeout"),
	"spec.stepTemplate.timeout": durationFrom("1ms", "timeout"),
	"spec.workspace": {
		{
			Rule:    "!has(self.claimName) || size(self.claimName) == 0 || !has(self.size)",
			Message: "workspace has size and claimName: set size for a new claim, or claimName for an existing one",
		},
		{
			Rule:    "!has(self.storageClassName) || has(self.size)",
			Message: "workspace.storageClassName takes effect only together with size: set size, too",
		},
	},
	"spec.steps":         {{Rule: "size(self) > 0", Message: "a Task needs at least one step"}},
	"spec.steps.name":    containerName("step"),
	"spec.steps.timeout": durationFrom("1ms", "timeout"),
	"spec.sidecars.name": containerName("sidecar"),
	"spec.template.metadata.annotations": {
		{
			Rule: fmt.Sprintf("!self.exists(key, %s)", isOwnAnnotation),
			MessageExpression: fmt.Sprintf("'template.metadata.annotations: ' + self.filter(key, %s)[0] + ' is set by taskflow: remove it; "+
				"only taskflow.practice.com/handoff and taskflow.practice.com/agent-delivery can be set'", isOwnAnnotation),
		},
		{
			Rule: "!('taskflow.practice.com/handoff' in self) || self['taskflow.practice.com/handoff'] == 'controller'",
			MessageExpression: `'template.metadata.annotations: taskflow.practice.com/handoff is "' + self['taskflow.practice.com/handoff'] + ` +
				`'": set it to controller, or remove it'`,
		},
		{
			Rule: "!('taskflow.practice.com/agent-delivery' in self) || self['taskflow.practice.com/agent-delivery'] in ['init', 'image']",
			MessageExpression: `'template.metadata.annotations: taskflow.practice.com/agent-delivery is "' + ` +
				`self['taskflow.practice.com/agent-delivery'] + '": set it to init or image, or remove it'`,
		},
	},
	"spec.template.metadata.labels": {{
		Rule: "!self.exists(key, key.startsWith('taskflow.practice.com/'))",
		MessageExpression: "'template.metadata.labels: ' + self.filter(key, key.startsWith('taskflow.practice.com/'))[0] + " +
			"' is set by taskflow: remove it'",
	}},
	"spec.template.spec.containers": {{
		Rule: "size(self) == 0", Message: "template.spec.containers must be left out: the steps are the containers",
	}},
	"spec.template.spec.restartPolicy": {{
		Rule: "self in ['Never', 'OnFailure']", Message: "template.spec.restartPolicy must be Never or OnFailure: steps must be able to finish",
	}},

	"spec.steps.lifecycle.postStart": unsupported("lifecycle.postStart of a step would run before the step is released: put it into the step's command"),
	"spec.steps.restartPolicy":       unsupported("restartPolicy of a step isn't supported: set template.spec.restartPolicy"),
	"spec.steps.restartPolicyRules":  unsupported("restartPolicyRules of a step isn't supported: set template.spec.restartPolicy"),
	"spec.sidecars.restartPolicy":    unsupported("restartPolicy of a sidecar is Always: leave it out"),
}

// hasPod is true once the Task has a Pod.
const hasPod = "self.?status.?attempt.hasValue()"

// isOwnAnnotation is true if an annotation of the template is taskflow's and not for users.
const isOwnAnnotation = "key.startsWith('taskflow.practice.com/') && " +
	"!(key in ['taskflow.practice.com/handoff', 'taskflow.practice.com/agent-delivery'])"

// unsupported rejects a field.
func unsupported(message string) apiextensionsv1.ValidationRules {
	return apiextensionsv1.ValidationRules{{Rule: "false", Message: message}}
}

// containerName restricts the name of a container to a DNS label without taskflow's prefix. Its maximum length is in the schema.
func containerName(kind string) apiextensionsv1.ValidationRules {
	return apiextensionsv1.ValidationRules{
		{
			Rule: "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
			Message: "the name of a " + kind + " must be lower-case letters, digits and '-', start and end with a letter or digit, " +
				"and have at most 63 characters",
		},
		{
			Rule:    "!self.startsWith('taskflow-')",
			Message: "the name of a " + kind + " can't start with taskflow-: such names are taskflow's own",
		},
	}
}

// isForGood rejects to set a boolean field back to false.
func isForGood(field string) apiextensionsv1.ValidationRule {
	return apiextensionsv1.ValidationRule{
		Rule:    expand("!has(oldSelf.F) || !oldSelf.F || has(self.F) && self.F", field),
		Message: field + " can't be taken back: create a new Task",
	}
}

// everyStep is a rule that holds for every step. The condition is a format for the variable that it reads. The message says what is wrong with
// the first step that breaks it.
func everyStep(condition, message string) apiextensionsv1.ValidationRule {
	first := fmt.Sprintf("self.spec.steps.map(c, %s).indexOf(false)", fmt.Sprintf(condition, "c"))
	return apiextensionsv1.ValidationRule{
		Rule:              fmt.Sprintf("%s || self.spec.steps.all(s, %s)", hasPod, fmt.Sprintf(condition, "s")),
		FieldPath:         ".spec.steps",
		MessageExpression: fmt.Sprintf(`'the step "' + self.spec.steps[%s].name + '" %s'`, first, message),
	}
}

// everyStepHasImage rejects a step without an image, unless the template of the steps has one.
var everyStepHasImage = func() apiextensionsv1.ValidationRule {
	rule := everyStep("has(%s.image) && size(%[1]s.image) > 0", "has no image: set image")
	const inTemplate = "size(self.spec.?stepTemplate.?image.orValue('')) > 0"
	rule.Rule = strings.Replace(rule.Rule, hasPod, hasPod+" || "+inTemplate, 1)
	return rule
}()

var everySidecarHasImage = func() apiextensionsv1.ValidationRule {
	const hasImage = "has(c.image) && size(c.image) > 0"
	return apiextensionsv1.ValidationRule{
		Rule:      fmt.Sprintf("%s || !has(self.spec.sidecars) || self.spec.sidecars.all(c, %s)", hasPod, hasImage),
		FieldPath: ".spec.sidecars",
		MessageExpression: fmt.Sprintf(`'the sidecar "' + self.spec.sidecars[self.spec.sidecars.map(c, %s).indexOf(false)].name + `+
			`'" has no image: set image'`, hasImage),
	}
}()

// continuesOnlyWithoutRestart rejects this onError of a step that the kubelet restarts until it succeeds.
func continuesOnlyWithoutRestart(onError string) apiextensionsv1.ValidationRule {
	rule := everyStep("!has(%s.onError) || %[1]s.onError != '"+onError+"'",
		"has onError: "+onError+", and template.spec.restartPolicy: OnFailure restarts a failed step forever: set only one of them")
	const neverRestarts = "self.spec.?template.?spec.?restartPolicy.orValue('Never') != 'OnFailure'"
	rule.Rule = strings.Replace(rule.Rule, hasPod, hasPod+" || "+neverRestarts, 1)
	rule.FieldPath = ".spec"
	return rule
}

// hasUniqueNames rejects two steps or sidecars with the same name.
var hasUniqueNames = func() apiextensionsv1.ValidationRule {
	const (
		names    = "[self.spec.steps.map(s, s.name) + (has(self.spec.sidecars) ? self.spec.sidecars.map(c, c.name) : [])]"
		isUnique = "names.indexOf(n) == names.lastIndexOf(n)"
		first    = names + ".map(names, names.map(n, " + isUnique + ").indexOf(false))[0]"
		steps    = "size(self.spec.steps)"
		name     = first + " < " + steps + " ? self.spec.steps[" + first + "].name : self.spec.sidecars[" + first + " - " + steps + "].name"
	)
	return apiextensionsv1.ValidationRule{
		Rule:              fmt.Sprintf("%s || %s.all(names, names.all(n, %s))", hasPod, names, isUnique),
		FieldPath:         ".spec",
		MessageExpression: fmt.Sprintf(`'two steps or sidecars have the name "' + (%s) + '": give each a name of its own'`, name),
	}
}()

// isImmutable rejects a change of what makes the Pod once the Task has one.
var isImmutable = func() apiextensionsv1.ValidationRule {
	statusChanged := func(field string) string {
		return expand("self.?status.?F.hasValue() && oldSelf.?status.?F.hasValue() && self.status.F != oldSelf.status.F", field)
	}
	unchanged, changed := []string{"self.spec.steps == oldSelf.spec.steps"}, []string{"self.spec.steps != oldSelf.spec.steps ? 'spec.steps'"}
	optional := []string{"sidecars", "template", "stepTemplate", "params", "workspace", "finallyTimeout", "timeout"}
	for i, field := range optional {
		unchanged = append(unchanged, expand("has(self.spec.F) == has(oldSelf.spec.F) && (!has(self.spec.F) || self.spec.F == oldSelf.spec.F)", field))
		if i < len(optional)-1 {
			changed = append(changed, expand("has(self.spec.F) != has(oldSelf.spec.F) || has(self.spec.F) && self.spec.F != oldSelf.spec.F ? 'spec.F'", field))
		} else {
			changed = append(changed, expand("'spec.F'", field))
		}
	}
	return apiextensionsv1.ValidationRule{
		Rule: strings.Join([]string{
			statusChanged("conditions"),
			statusChanged("steps"),
			"!oldSelf.?status.?attempt.hasValue()",
			strings.Join(unchanged, " && "),
		}, " || "),
		FieldPath:         ".spec",
		MessageExpression: fmt.Sprintf(`(%s) + " can't change once the Task has a Pod: create a new Task, or delete this one first"`, strings.Join(changed, " : ")),
	}
}()

// expand puts the name of a field for F.
func expand(expression, field string) string { return strings.ReplaceAll(expression, "F", field) }

// durationFrom rejects a value of the field that is no duration of at least the given one. duration() fails for other strings, and an error would be the message: so
// the characters are checked first. A number, which users write for seconds, has a message of its own.
func durationFrom(least, field string) apiextensionsv1.ValidationRules {
	const (
		digit       = "self.charAt(%s) in ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']"
		isUnit      = "self.charAt(i) in ['.', 'h', 'm', 's'] && %s || self.charAt(i) == 's' && self.charAt(i - 1) == 'm'"
		endsInUnit  = "(self.endsWith('h') || self.endsWith('m') || self.endsWith('s'))"
		isNoString  = "[type(self)] != [string]"
		maxLength   = 32 // as the schema has it
		longestTime = "99999h"
	)
	positions := make([]string, maxLength)
	for i := range positions {
		positions[i] = strconv.Itoa(i)
	}
	isValid := fmt.Sprintf("i >= size(self) || %s || i > 0 && (%s)", fmt.Sprintf(digit, "i"), fmt.Sprintf(isUnit, fmt.Sprintf(digit, "i - 1")))
	return apiextensionsv1.ValidationRules{
		{
			Rule:    "[type(self)] == [string]",
			Message: field + " is a number without a unit: write it as 90s, 5m or 1h30m",
		},
		{
			Rule: fmt.Sprintf("%s || [%s].all(i, %s) && %s && duration(self) >= duration('%s') && duration(self) <= duration('%s')",
				isNoString, strings.Join(positions, ", "), isValid, endsInUnit, least, longestTime),
			Message: fmt.Sprintf("%s must be a duration from %s to %s, such as 90s, 5m or 1h30m", field, least, longestTime),
		},
	}
}
