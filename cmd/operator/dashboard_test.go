package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/taskflow/taskflow-operator/controller"
)

// exported are the labels of each metric that the operator has, by name.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	registry, ok := metrics.Registry.(prometheus.Collector)
	if !ok {
		t.Fatalf("%T doesn't describe its metrics", metrics.Registry)
	}
	all := map[string][]string{}
	description := regexp.MustCompile(`^Desc\{fqName: "([^"]+)", .*, variableLabels: \{(.*)\}\}$`)
	for _, collector := range []prometheus.Collector{registry, controller.TaskCounter{}} { // the operator registers the second one itself
		descriptions := make(chan *prometheus.Desc)
		go func() {
			collector.Describe(descriptions)
			close(descriptions)
		}()
		for d := range descriptions {
			parts := description.FindStringSubmatch(d.String())
			if parts == nil {
				t.Fatalf("%s can't be read", d)
			}
			all[parts[1]] = strings.Split(parts[2], ",")
		}
	}
	return all
}

// check lists what a query asks for that the operator does not export. Prometheus itself adds the label job.
func check(query string, exported map[string][]string) error {
	parsed, err := metricsql.Parse(query)
	if err != nil {
		return err
	}
	labels := []string{"job"}
	var used []string
	metricsql.VisitAll(parsed, func(part metricsql.Expr) {
		switch part := part.(type) {
		case *metricsql.MetricExpr:
			for _, filters := range part.LabelFilterss {
				name := ""
				for _, filter := range filters {
					if filter.Label == "__name__" {
						name = filter.Value
					} else {
						used = append(used, filter.Label)
					}
				}
				known, ok := exported[name]
				if base, cut := strings.CutSuffix(name, "_bucket"); cut && strings.HasSuffix(base, "_seconds") {
					known, ok = exported[base]
					labels = append(labels, "le")
				}
				if !ok {
					err = fmt.Errorf("there is no metric %q", name)
				}
				labels = append(labels, known...)
			}
		case *metricsql.AggrFuncExpr:
			used = append(used, part.Modifier.Args...)
		}
	})
	for _, label := range used {
		if !slices.Contains(labels, label) {
			err = fmt.Errorf("there is no label %q", label)
		}
	}
	return err
}

// TestDashboard proves that the dashboard uses only metrics that the operator exports.
func TestDashboard(t *testing.T) {
	content, err := os.ReadFile("../../charts/taskflow/files/taskflow.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) == 0 {
		t.Fatal("the dashboard has no panels")
	}
	all := exported(t)
	for _, variable := range regexp.MustCompile(`label_values\((\w+), `).FindAllStringSubmatch(string(content), -1) {
		if all[variable[1]] == nil {
			t.Errorf("a variable has its values from %s, which isn't there", variable[1])
		}
	}
	legend := regexp.MustCompile(`\{\{(\w+)\}\}`)
	for _, panel := range dashboard.Panels {
		if len(panel.Targets) == 0 {
			t.Errorf("%s asks for nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			if err := check(strings.ReplaceAll(target.Expr, "$__rate_interval", "5m"), all); err != nil {
				t.Errorf("%s: %v: %s", panel.Title, err, target.Expr)
			}
			for _, label := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				if !regexp.MustCompile(`by \([^)]*\b` + label[1] + `\b`).MatchString(target.Expr) {
					t.Errorf("%s: the legend names the label %q, which the query drops: %s", panel.Title, label[1], target.Expr)
				}
			}
		}
	}
}

// TestCheck proves that TestDashboard finds a metric or label that does not exist.
func TestCheck(t *testing.T) {
	cases := map[string]struct{ query, want string }{
		"right":               {`sum by (le, state) (rate(taskflow_step_duration_seconds_bucket{job="a"}[5m]))`, "<nil>"},
		"counted when read":   {`max by (phase) (taskflow_tasks)`, "<nil>"},
		"unknown metric":      {`taskflow_task`, `there is no metric "taskflow_task"`},
		"unknown label":       {`taskflow_tasks{state="Failed"}`, `there is no label "state"`},
		"unknown label in by": {`sum by (state) (taskflow_tasks)`, `there is no label "state"`},
		"not a histogram":     {`taskflow_tasks_bucket`, `there is no metric "taskflow_tasks_bucket"`},
		"no le":               {`sum by (le) (taskflow_step_duration_seconds)`, `there is no label "le"`},
	}
	all := exported(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := fmt.Sprint(check(c.query, all)); got != c.want {
				t.Errorf("check(%s) = %s, want %s", c.query, got, c.want)
			}
		})
	}
	if check(`sum(`, all) == nil {
		t.Error("a query that can't be parsed has no error")
	}
}
