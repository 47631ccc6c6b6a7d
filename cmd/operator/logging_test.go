package main

import (
	"bytes"
	"log"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/go-logr/zapr"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
)

// encoded counts how often it is encoded.
type encoded int

func (e *encoded) MarshalLogObject(encoder zapcore.ObjectEncoder) error {
	*e++
	encoder.AddString("name", "task")
	return nil
}

// TestLazyCore proves that a logger's values, and those of a logger made from it, are encoded only when a line is written, and that the
// line has all of them.
func TestLazyCore(t *testing.T) {
	var output bytes.Buffer
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&output), zapcore.InfoLevel)
	var value encoded
	logger := zapr.NewLogger(zap.New(lazyCore{core})).WithValues("object", &value).WithValues("reconcileID", "1")
	logger.V(1).Info("isn't wanted")
	if value != 0 || output.Len() > 0 {
		t.Errorf("for a line that isn't written, the values were encoded %d times, and the output is %s", value, &output)
	}
	logger.Info("is wanted")
	if line := output.String(); value != 1 || !strings.Contains(line, `"object":{"name":"task"},"reconcileID":"1"`) {
		t.Errorf("the values were encoded %d times, and the line is %s", value, line)
	}
}

// TestLogger proves the levels and formats, and from which level on V(1) is written.
func TestLogger(t *testing.T) {
	type result struct{ Info, V1 bool }
	cases := map[string]struct {
		level  zapcore.Level
		format string
		want   result
	}{
		"by default": {zapcore.InfoLevel, "json", result{Info: true}},
		"debug":      {zapcore.DebugLevel, "json", result{Info: true, V1: true}},
		"warn":       {zapcore.WarnLevel, "json", result{}},
		"error":      {zapcore.ErrorLevel, "console", result{}},
		"console":    {zapcore.InfoLevel, "console", result{Info: true}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			logger, err := config{logLevel: c.level, logFormat: c.format}.logger()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, result{logger.Enabled(), logger.V(1).Enabled()}); diff != "" {
				t.Errorf("the logger (-want +got):\n%s", diff)
			}
		})
	}
}

// TestLogWith proves that lines which libraries log by other packages go to the same logger.
func TestLogWith(t *testing.T) {
	flags, output, before := log.Flags(), log.Writer(), slog.Default()
	t.Cleanup(func() {
		slog.SetDefault(before)
		log.SetFlags(flags)
		log.SetOutput(output)
		klog.ClearLogger()
	})
	var lines []string
	logWith(funcr.NewJSON(func(line string) { lines = append(lines, line) }, funcr.Options{}))
	log.Print("http: TLS handshake error")
	klog.Info("from client-go")
	want := []string{
		`{"logger":"","level":0,"msg":"http: TLS handshake error"}`,
		`{"logger":"","level":0,"msg":"from client-go"}`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("what is logged (-want +got):\n%s", diff)
	}
}
