package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// encoded counts how often it is encoded.
type encoded int

func (e *encoded) MarshalLogObject(encoder zapcore.ObjectEncoder) error {
	*e++
	encoder.AddString("name", "task")
	return nil
}

// TestLazyCore proves that the values of a logger, and of one that is made from it, are encoded when a line is written that is wanted, and that
// the line has all of them.
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
