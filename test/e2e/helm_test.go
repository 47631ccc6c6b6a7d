//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/internal/contract"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// largestRelease is half of the limit of the Secret in which Helm stores a release.
const largestRelease = 512 * 1024

// TestHelm proves that the chart installs with the README's command, that an upgrade refuses no Pod, and that the sample Task runs and
// survives the loss of the operator's Pods in each variant of the certificate. Removal leaves no trace, and the API server doesn't call a
// webhook that is gone. The kind Task and all Tasks stay until a user deletes the kind, and belong to the next release. Helm can adopt a
// kind Task that it didn't create.
func TestHelm(t *testing.T) {
	needCertManager(t)
	wait.For(t, "the operator to be available", rolledOut)
	before, usual, values := manifests(t, "default"), chartValues(t, shutdownDelay), chartValues(t, "")
	t.Cleanup(func() { // restores the installation for the next tests
		_ = helmCommand(context.WithoutCancel(t.Context()), "uninstall", "taskflow", "--namespace", harness.OperatorNamespace, "--ignore-not-found").Run()
		kubectl(t, before, "apply", "-f", "-")
		kubectl(t, nil, "-n", harness.OperatorNamespace, "rollout", "status", "--timeout=90s", "deployment")
	})
	undeploy(t, "remove")
	install := []string{"install", "taskflow", "charts/taskflow", "--namespace", harness.OperatorNamespace, "--create-namespace", "--values"}

	helm(t, slices.Concat(install, []string{usual, "--wait"})...)
	t.Run("upgrade", func(t *testing.T) {
		namespace := cluster.NewNamespace(t, "baseline")
		wait.For(t, "the node to know the new Services", func(ctx context.Context) error {
			return cluster.Create(ctx, labelledPod(namespace), client.DryRunAll)
		})
		load := createPods(t, namespace)
		helm(t, "upgrade", "taskflow", "charts/taskflow", "--namespace", harness.OperatorNamespace, "--wait", "--values", values)
		wait.For(t, "the operator to be upgraded", rolledOut)
		load.stop(t)
		var releases corev1.SecretList
		if err := cluster.List(t.Context(), &releases, client.InNamespace(harness.OperatorNamespace), client.MatchingLabels{"owner": "helm"}); err != nil {
			t.Fatal(err)
		}
		if len(releases.Items) != 2 {
			t.Errorf("Helm has %d releases, want 2", len(releases.Items))
		}
		for _, release := range releases.Items {
			t.Logf("%s has %d bytes", release.Name, len(release.Data["release"]))
			if size := len(release.Data["release"]); size > largestRelease {
				t.Errorf("%s has %d bytes, want at most %d", release.Name, size, largestRelease)
			}
		}
	})

	sample := runSample(t)
	t.Run("uninstall", func(t *testing.T) {
		manifest := helm(t, "get", "manifest", "taskflow", "--namespace", harness.OperatorNamespace)
		checked := askForPods(t, cluster.NewNamespace(t, "baseline"))
		helm(t, "uninstall", "taskflow", "--namespace", harness.OperatorNamespace, "--wait")
		checked()
		leftovers(t, manifest, "CustomResourceDefinition")
		wait.For(t, "the namespace to be all that is left", onlyLeft("Namespace "+harness.OperatorNamespace))
		if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(sample), sample); err != nil {
			t.Errorf("the Task is gone: %v", err)
		}
	})

	uninstall := func() {
		helm(t, "uninstall", "taskflow", "--namespace", harness.OperatorNamespace, "--wait")
		kubectl(t, nil, "delete", "crd", "tasks.api.practice.com")
	}
	startCertManager(t)
	helm(t, slices.Concat(install, []string{values, "--wait", "--set", "certificates=certManager"})...)
	runSample(t)
	uninstall()
	kubectl(t, nil, "delete", "namespace", harness.OperatorNamespace) // with the Secrets of cert-manager
	leftovers(t, before, "")
	wait.For(t, "nothing to be left", onlyLeft())

	kubectl(t, nil, "apply", "-k", "../../config/crd")
	helm(t, append(install, values, "--take-ownership")...)
	uninstall()
}

// chartValues writes the values of the installed operator, except for one of its flags, and returns the file's name.
func chartValues(t *testing.T, but string) string {
	t.Helper()
	var file corev1.ConfigMap
	if err := cluster.Get(t.Context(), client.ObjectKey{Namespace: harness.OperatorNamespace, Name: "taskflow-config"}, &file); err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := yaml.Unmarshal([]byte(file.Data["config.yaml"]), &config); err != nil {
		t.Fatal(err)
	}
	operator := installedOperator(t)
	agent, ok := strings.CutPrefix(operator.Args[0], "--agent-image=")
	if !ok {
		t.Fatalf("the operator's flags are %q, want the agent's image first", operator.Args)
	}
	content, err := yaml.Marshal(map[string]any{
		"images": map[string]string{"operator": operator.Image, "agent": agent},
		"args":   withoutFlag(operator.Args[2:], but), // the second flag names the configuration file
		"config": config,
	})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func helm(t *testing.T, args ...string) []byte {
	t.Helper()
	command := helmCommand(t.Context(), args...)
	var errs bytes.Buffer
	command.Stderr = &errs
	output, err := command.Output()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, &errs)
	}
	return output
}

func helmCommand(ctx context.Context, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "go", append([]string{"tool", "-modfile=hack/helm.mod", "helm"}, args...)...)
	command.Dir = "../.."
	return command
}

// askForPods creates labelled Pods in dry runs, one after another, until its result is called. The test fails if the API server still calls
// a webhook that is gone, or if a Pod stays unmutated while the policy against that is in force. The API server learns from two watches
// that the webhook's configuration and its Service are gone. For a moment it may know only of the Service.
func askForPods(t *testing.T, namespace string) (stop func()) {
	t.Helper()
	const mutated, refused, alone, between = "mutated", "refused by the policy", "left alone without it", "refused since the Service was gone"
	const moment = time.Second
	ctx, cancel := context.WithCancel(t.Context())
	ask := func() string {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, GenerateName: "asked-", Labels: map[string]string{contract.SequentialLabel: "true"},
			},
			Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever,
				Containers:    []corev1.Container{{Name: "step", Image: "busybox:1.28", Command: []string{"true"}}},
			},
		}
		if err := cluster.Create(ctx, pod, client.DryRunAll); err != nil {
			if strings.Contains(err.Error(), "taskflow-unmutated") {
				return refused
			}
			if strings.Contains(err.Error(), `service "taskflow-webhook-b" not found`) {
				return between
			}
			return err.Error()
		}
		if pod.Annotations[contract.OrderAnnotation] != "" {
			return mutated
		}
		err := cluster.Get(ctx, client.ObjectKey{Name: "taskflow-unmutated"}, &admissionregistrationv1.ValidatingAdmissionPolicy{})
		if apierrors.IsNotFound(err) {
			return alone
		}
		return fmt.Sprintf("a Pod came through unmutated (the policy: %v)", err)
	}
	if got := ask(); got != mutated {
		t.Fatalf("the first Pod: %s", got)
	}
	outcomes := map[string]int{}
	var first, last time.Time // of the errors in between
	var done sync.WaitGroup
	done.Go(func() {
		for {
			outcome := ask()
			if ctx.Err() != nil {
				return
			}
			outcomes[outcome]++
			if outcome == between {
				if last = time.Now(); first.IsZero() {
					first = last
				}
			}
		}
	})
	return func() {
		t.Helper()
		cancel()
		done.Wait()
		t.Logf("Pods were %s: %d, %s: %d, %s: %d, %s: %d",
			mutated, outcomes[mutated], refused, outcomes[refused], alone, outcomes[alone], between, outcomes[between])
		if length := last.Sub(first); length > moment {
			t.Errorf("the API server called a webhook without a Service for %s", length)
		}
		for outcome, times := range outcomes {
			if !slices.Contains([]string{mutated, refused, alone, between}, outcome) {
				t.Errorf("%d times: %s", times, outcome)
			}
		}
	}
}
