//go:build e2e

package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/test/harness"
	"github.com/taskflow/taskflow-operator/test/wait"
)

// TestQuota proves that taskflow's additions fit a namespace whose ResourceQuota requires requests and limits and whose LimitRange bounds
// them. The requests of steps are summed. Pod-level requests allow a user to request the maximum of one step instead: they count for the
// quota, and on the node.
func TestQuota(t *testing.T) {
	t.Parallel()
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	namespace := cluster.NewNamespace(t, "privileged")
	quota := &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "quota"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			corev1.ResourceRequestsCPU: resource.MustParse("100m"), corev1.ResourceRequestsMemory: resource.MustParse("64Mi"),
			corev1.ResourceLimitsCPU: resource.MustParse("2"), corev1.ResourceLimitsMemory: resource.MustParse("256Mi"),
		}},
	}
	limits := &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "limits"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Min: list("5m", "8Mi"), Max: list("1", "128Mi"),
			DefaultRequest: list("40m", "16Mi"), Default: list("200m", "64Mi"),
		}}},
	}
	for _, object := range []client.Object{quota, limits} {
		cluster.Make(t, object)
	}
	wait.For(t, "the quota to count", func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(quota), quota); err != nil {
			return err
		}
		if len(quota.Status.Hard) == 0 {
			return errors.New("it doesn't")
		}
		return nil
	})

	sum := harness.NewTask(namespace, "sum", harness.Shell("one", "true"), harness.Shell("two", "true"), harness.Shell("three", "true"))
	cluster.Make(t, sum)
	status := cluster.AwaitTask(t, sum, "the quota to refuse the Pod", func(status v1alpha1.TaskStatus) bool {
		condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionProgressing)
		return condition != nil && condition.Reason == v1alpha1.ReasonPodRefused
	})
	wantCondition(t, status, v1alpha1.ConditionProgressing, metav1.ConditionFalse, v1alpha1.ReasonPodRefused,
		"exceeded quota: quota, requested: requests.cpu=120m, used: requests.cpu=0, limited: requests.cpu=100m")

	defaults := harness.NewTask(namespace, "defaults", harness.Shell("one", "true"), harness.Shell("two", "true"))
	cluster.Make(t, defaults)
	cluster.AwaitTask(t, defaults, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))

	most, journal := pausingTask(t, namespace, "most", 3)
	for i := range most.Spec.Steps {
		most.Spec.Steps[i].Resources.Requests = list("5m", "8Mi") // otherwise the LimitRange's defaults would be summed
	}
	most.Spec.Template.Spec.Resources = &corev1.ResourceRequirements{Requests: list("100m", "64Mi"), Limits: list("500m", "96Mi")}
	cluster.Make(t, most)
	awaitFirstStep(t, most)
	wait.For(t, "the quota to be used", func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(quota), quota); err != nil {
			return err
		}
		want := map[corev1.ResourceName]string{
			corev1.ResourceRequestsCPU: "100m", corev1.ResourceRequestsMemory: "64Mi",
			corev1.ResourceLimitsCPU: "500m", corev1.ResourceLimitsMemory: "96Mi",
		}
		got := map[corev1.ResourceName]string{}
		for name, used := range quota.Status.Used {
			got[name] = used.String()
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return errors.New("(-want +got):\n" + diff)
		}
		return nil
	})
	if diff := cmp.Diff(int64(96<<20), podMemoryLimit(t, findProcess(t, client.ObjectKeyFromObject(most), firstAgent))); diff != "" {
		t.Errorf("memory limit of the Pod on the node (-want +got):\n%s", diff)
	}
	resume(t, journal)
	cluster.AwaitTask(t, most, "the Task to succeed", harness.InPhase(v1alpha1.TaskSucceeded))
	if wrong := disorder(readJournal(t, journal), 3); len(wrong) > 0 {
		t.Errorf("the steps ran out of order:\n%s", strings.Join(wrong, "\n"))
	}
}

// podMemoryLimit reads the limit of the Pod's control group, the parent of the group of a container's process (cgroups(7)).
func podMemoryLimit(t *testing.T, pid int) int64 {
	t.Helper()
	groups, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	file := ""
	for line := range strings.Lines(string(groups)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		switch controllers {
		case "memory":
			file = filepath.Join("/sys/fs/cgroup/memory", filepath.Dir(group), "memory.limit_in_bytes")
		case "":
			if file == "" {
				file = filepath.Join("/sys/fs/cgroup", filepath.Dir(group), "memory.max")
			}
		}
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return limit
}
