package podspec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/taskflow/taskflow-operator/internal/contract"
)

// listPod returns a Pod with containers of these names, each with a command, and a list of steps.
func listPod(containers, list string) string {
	var text strings.Builder
	text.WriteString("apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n  labels: {taskflow.practice.com/sequential: \"true\"}\n")
	text.WriteString("  annotations:\n    taskflow.practice.com/steps: |\n")
	for line := range strings.SplitSeq(strings.TrimSpace(list), "\n") {
		text.WriteString("      " + line + "\n")
	}
	text.WriteString("spec:\n  restartPolicy: Never\n  containers:\n")
	for name := range strings.FieldsSeq(containers) {
		text.WriteString("  - {name: " + name + ", image: x, command: [run]}\n")
	}
	return text.String()
}

// TestGateGraph proves the flags, files and mounts of steps that don't simply follow each other. They are spelled out, because Pods in flight
// outlive an upgrade.
func TestGateGraph(t *testing.T) {
	const (
		own     = "--wait /etc/podinfo/order --waitcontent N --out stdout --halt /etc/podinfo/halt --run /taskflow/run"
		final   = "--wait /etc/podinfo/order --waitcontent N --out stdout --halt /etc/podinfo/halt-finally --run /taskflow/run"
		cancel  = " --cancel /etc/podinfo/cancel"
		outcome = " --outcome /etc/podinfo/outcome"
		run     = " --command run"
	)
	stage := func(flags, stage string) string { return strings.Replace(flags, "N", stage, 1) }
	type gated struct {
		Options string
		Args    []string // by the steps' order
		Mounts  string   // of the run directory, by the steps' order
		Files   string   // of the podinfo volume
	}
	cases := map[string]struct {
		containers, list string
		edit             func(string) string // may be nil
		want             gated
	}{
		"a chain with options": {
			"a b", `
- {name: a, timeout: 10m, retries: 2, exitCodes: [{in: [2, 3], then: Succeed}, {in: [75], then: Retry}]}
- b`,
			nil,
			gated{
				`{"a":{"timeout":600000000000,"retries":2,"exitCodes":[{"in":[2,3],"then":"Succeed"},{"in":[75],"then":"Retry"}]}}`,
				[]string{
					stage(own, "1") + " --timeout 10m0s --retries 2 --exit-code 2,3=Succeed --exit-code 75=Retry" + run,
					stage(own, "2") + run,
				},
				"/1 /2", "order halt",
			},
		},
		"a failure that passes": {
			"a b c", "[{name: a, onError: Continue}, {name: b, onError: FailAtEnd}, {name: c, onError: Stop}]", nil,
			gated{
				`{"a":{"continueOnError":true},"b":{"failAtEnd":true}}`,
				[]string{
					stage(own, "1") + " --on-error continue" + run,
					stage(own, "2") + " --after-failure continue --on-error fail-at-end" + run,
					stage(own, "3") + run,
				},
				"/1 /2 /3", "order halt",
			},
		},
		"a chain with an input and a condition": {
			"a b", `
- a
- name: b
  inputs: [{step: a, output: SHA, default: $(A)}, {name: PATH, step: a, output: DIR}]
  when: [{step: a, state: {notIn: [Skipped]}}, {step: a, exitCode: {in: [0, 2]}}, {step: a, output: KIND, in: ["yes", $x]}]`,
			nil,
			gated{
				`{"b":{"when":[{"step":"a","of":"state","notIn":["Skipped"]},{"step":"a","of":"exitCode","in":["0","2"]},` +
					`{"step":"a","of":"output","output":"KIND","in":["yes","$x"]}],` +
					`"inputs":[{"name":"SHA","step":"a","output":"SHA","default":"$(A)"},{"name":"PATH","step":"a","output":"DIR"}]}}`,
				[]string{
					stage(own, "1") + run,
					stage(own, "2") + ` --when {"step":"a","number":1,"of":"state","notIn":["Skipped"]}` +
						` --when {"step":"a","number":1,"of":"exitCode","in":["0","2"]}` +
						` --when {"step":"a","number":1,"of":"output","output":"KIND","in":["yes","$$x"]}` +
						` --input {"name":"SHA","step":"a","number":1,"output":"SHA","default":"$$(A)"}` +
						` --input {"name":"PATH","step":"a","number":1,"output":"DIR"}` + outcome + run,
				},
				"/1 /2", "order halt outcome",
			},
		},
		"a chain with final steps": {
			"a b c d", "[a, {name: b, onError: Continue}, {name: c, finally: true}, {name: d, finally: true, onError: Continue}]", nil,
			gated{
				`{"b":{"continueOnError":true},"c":{"finally":true},"d":{"continueOnError":true,"finally":true}}`,
				[]string{
					stage(own, "1") + run,
					stage(own, "2") + " --on-error continue" + run,
					stage(final, "3") + " --after 2 --work 2 --final" + outcome + run,
					stage(final, "4") + " --after 3 --final --on-error continue" + outcome + run,
				},
				"/1 /2 /3 /4", "order halt halt-finally outcome",
			},
		},
		"branches": {
			"a b c d", "[a, {name: b, dependsOn: [a]}, {name: c, dependsOn: [a]}, {name: d, dependsOn: [b, c]}]", nil,
			gated{
				`{"b":{"dependsOn":["a"]},"c":{"dependsOn":["a"]},"d":{"dependsOn":["b","c"]}}`,
				[]string{
					stage(own, "1") + " --work 4" + cancel + run,
					stage(own, "2") + " --after 1 --work 4" + cancel + run,
					stage(own, "2") + " --step 3 --after 1 --work 4" + cancel + run,
					stage(own, "3") + " --step 4 --after 2 --after 3 --work 4" + cancel + run,
				},
				"/1 /2 /3 /4", "order halt cancel",
			},
		},
		"several first steps, and a final one behind all ends": {
			"a b c", "[a, {name: b, dependsOn: []}, {name: c, finally: true}]", nil,
			gated{
				`{"b":{"dependsOn":[]},"c":{"finally":true}}`,
				[]string{
					stage(own, "1") + " --work 2" + cancel + run,
					stage(own, "1") + " --step 2 --work 2" + cancel + run,
					stage(final, "2") + " --step 3 --after 1 --after 2 --work 2 --final" + outcome + run,
				},
				"/1 /2 /3", "order halt cancel halt-finally outcome",
			},
		},
		"dependsOn that makes a chain": {
			"a b", "[{name: a, dependsOn: []}, {name: b, dependsOn: [a]}]", nil,
			gated{`{"a":{"dependsOn":[]},"b":{"dependsOn":["a"]}}`, []string{stage(own, "1") + run, stage(own, "2") + run}, "/1 /2", "order halt"},
		},
		"branches that the kubelet restarts": {
			"a b c", "[a, {name: b, dependsOn: []}, {name: c, finally: true}]",
			func(pod string) string { return strings.Replace(pod, "Never", "OnFailure", 1) },
			gated{
				`{"b":{"dependsOn":[]},"c":{"finally":true}}`,
				[]string{
					stage(own, "1") + " --again --work 2" + cancel + run,
					stage(own, "1") + " --again --step 2 --work 2" + cancel + run,
					stage(final, "2") + " --again --step 3 --after 1 --after 2 --work 2 --final" + outcome + run,
				},
				"/1 /2 /3", "order halt cancel halt-finally outcome",
			},
		},
		"a successor that the kubelet restarts": {
			"a b c", "[a, {name: b, dependsOn: [a]}, {name: c, dependsOn: [a]}]",
			func(pod string) string { return strings.Replace(pod, "Never", "OnFailure", 1) },
			gated{
				`{"b":{"dependsOn":["a"]},"c":{"dependsOn":["a"]}}`,
				[]string{
					stage(own, "1") + " --again --work 3" + cancel + run,
					stage(own, "2") + " --after-failure wait --again --after 1 --work 3" + cancel + run,
					stage(own, "2") + " --after-failure wait --again --step 3 --after 1 --work 3" + cancel + run,
				},
				"/1 /2 /3", "order halt cancel",
			},
		},
		// Only steps that read the records of others have the whole run directory.
		"only the controller releases": {
			"a b c", "[a, {name: b, dependsOn: [], inputs: []}, {name: c, finally: true, when: [{step: a, exitCode: {notIn: [0]}}]}]",
			func(pod string) string {
				return strings.Replace(pod, "annotations:", "annotations:\n    taskflow.practice.com/handoff: controller", 1)
			},
			gated{
				`{"b":{"dependsOn":[]},"c":{"when":[{"step":"a","of":"exitCode","notIn":["0"]}],"finally":true}}`,
				[]string{
					stage(own, "1") + " --alone" + cancel + run,
					stage(own, "1") + " --alone --step 2" + cancel + run,
					stage(final, "2") + ` --alone --step 3 --final --when {"step":"a","number":1,"of":"exitCode","notIn":["0"]}` + outcome + run,
				},
				"1 2 /3", "order halt cancel halt-finally outcome",
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			manifest := listPod(c.containers, c.list)
			if c.edit != nil {
				manifest = c.edit(manifest)
			}
			raw, _ := admit(t, fromYAML(t, manifest))
			assertUnchanged(t, raw)
			pod := decodePod(t, raw)
			got := gated{Options: pod.Annotations[contract.OptionsAnnotation]}
			var mounts []string
			for i, container := range pod.Spec.Containers {
				got.Args = append(got.Args, strings.Join(container.Args, " "))
				number, text := i+1, ""
				for _, mount := range container.VolumeMounts {
					switch {
					case mount.Name == contract.RunVolume && mount.SubPath == "" && mount.ReadOnly:
						text += "/"
					case mount.Name == contract.RunVolume && mount.MountPath == contract.StepDir("/taskflow/run", number):
						text += mount.SubPath
					}
				}
				mounts = append(mounts, text)
			}
			got.Mounts = strings.Join(mounts, " ")
			var files []string
			for _, volume := range pod.Spec.Volumes {
				if volume.Name != contract.PodInfoVolume {
					continue
				}
				for _, item := range volume.DownwardAPI.Items {
					files = append(files, item.Path)
					if item.FieldRef.FieldPath != "metadata.annotations['taskflow.practice.com/"+item.Path+"']" {
						t.Errorf("the file %s has %s", item.Path, item.FieldRef.FieldPath)
					}
				}
			}
			got.Files = strings.Join(files, " ")
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the Pod (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(strings.Join(strings.Fields(c.containers), ","), pod.Annotations[contract.StepsAnnotation]); diff != "" {
				t.Errorf("the steps (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff("1", pod.Annotations[contract.OrderAnnotation]); diff != "" {
				t.Errorf("the order (-want +got):\n%s", diff)
			}
		})
	}
}
