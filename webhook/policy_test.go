package webhook

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"

	"github.com/taskflow/taskflow-operator/api/v1alpha1"
	"github.com/taskflow/taskflow-operator/internal/contract"
)

// TestPoliciesKnowAllKeys proves that the policies in config/policy name each label and annotation of internal/contract/annotations.go: anyone who
// may edit a Pod could change a missing key, or users would be told that it is unknown.
func TestPoliciesKnowAllKeys(t *testing.T) {
	keys := contractKeys(t)
	if want := contract.OrderAnnotation; !slices.Contains(keys, want) {
		t.Fatalf("the keys are %q, and %s isn't among them", keys, want)
	}
	for _, file := range []string{"annotations.yaml", "keys.yaml"} {
		content, err := os.ReadFile("../config/policy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var missing []string
		for _, key := range keys {
			if !strings.Contains(string(content), "'"+key) && !strings.Contains(string(content), "'"+strings.TrimPrefix(key, contract.Group)+"'") {
				missing = append(missing, key)
			}
		}
		if diff := cmp.Diff([]string(nil), missing); diff != "" {
			t.Errorf("keys that config/policy/%s doesn't have (-want +got):\n%s", file, diff)
		}
	}
}

// TestTasksAreCheckedForAllFields proves that the API server calls the webhook for Tasks about each field that podspec.ValidateTask checks: all but
// those that the schema of the kind checks alone.
func TestTasksAreCheckedForAllFields(t *testing.T) {
	var configuration admissionregistrationv1.ValidatingWebhookConfiguration
	content, err := os.ReadFile("../config/webhook/validating_webhook.yaml")
	if err == nil {
		err = yaml.UnmarshalStrict(content, &configuration)
	}
	if err != nil {
		t.Fatal(err)
	}
	schemaAlone := map[string][]string{
		"s":           {"timeout", "retries", "onError"},
		"object.spec": {"steps", "template", "sidecars", "timeout", "backoffLimit", "ttlSecondsAfterFinished", "suspend", "cancel", "cancelFinally"},
	}
	for variable, of := range map[string]reflect.Type{"s": reflect.TypeFor[v1alpha1.StepOptions](), "object.spec": reflect.TypeFor[v1alpha1.TaskSpec]()} {
		for field := range of.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			for _, hook := range configuration.Webhooks {
				isAsked := strings.Contains(hook.MatchConditions[0].Expression, "has("+variable+"."+name+")")
				if want := !slices.Contains(schemaAlone[variable], name); name != "onError" && isAsked != want {
					t.Errorf("%s is called about %s.%s: %t, want %t", hook.Name, variable, name, isAsked, want)
				}
			}
		}
	}
}

// contractKeys returns the labels and annotations that internal/contract/annotations.go has: the constants that start with contract.Group.
func contractKeys(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../internal/contract/annotations.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	ast.Inspect(file, func(node ast.Node) bool {
		sum, ok := node.(*ast.BinaryExpr)
		if !ok {
			return true
		}
		group, ok := sum.X.(*ast.Ident)
		suffix, literal := sum.Y.(*ast.BasicLit)
		if ok && literal && group.Name == "Group" {
			keys = append(keys, contract.Group+constant.StringVal(constant.MakeFromLiteral(suffix.Value, token.STRING, 0)))
		}
		return true
	})
	return keys
}
