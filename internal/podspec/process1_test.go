package podspec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// TestCheckProcess1 proves that a program which ends at once unless it is process 1 is no step, and that one which only has such a name is.
func TestCheckProcess1(t *testing.T) {
	refused := func(program string) string {
		return `the step "app" runs ` + program + `, which must be process 1, but taskflow's agent is: set command to the program that it starts`
	}
	cases := map[string]struct {
		command, args []string
		want          string
	}{
		"s6-overlay":               {[]string{"/init"}, nil, refused("/init")},
		"s6-overlay and a program": {[]string{"/init", "nginx"}, []string{"-g", "daemon off;"}, refused("/init")},
		"systemd as init":          {[]string{"/sbin/init"}, nil, refused("/sbin/init")},
		"systemd":                  {[]string{"/lib/systemd/systemd"}, []string{"--system"}, refused("/lib/systemd/systemd")},
		"systemd below /usr":       {[]string{"/usr/lib/systemd/systemd"}, nil, refused("/usr/lib/systemd/systemd")},
		"init below /usr":          {[]string{"/usr/sbin/init"}, nil, refused("/usr/sbin/init")},
		"an init for containers":   {[]string{"/sbin/tini", "--", "/init"}, nil, ""},
		"a script of that name":    {[]string{"/app/init"}, nil, ""},
		"a script in the PATH":     {[]string{"init"}, nil, ""},
		"a shell that becomes one": {[]string{"sh", "-c", "exec /init"}, nil, ""},
		"only an argument":         {[]string{"cat"}, []string{"/init"}, ""},
		"nothing":                  {nil, nil, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := checkStep(&corev1.Container{Name: "app", Command: c.command, Args: c.args}); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("checkStep (-want +got):\n%s", diff)
			}
		})
	}
}
