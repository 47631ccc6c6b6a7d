package main

import (
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// logger returns zap behind logr. Level debug includes V(1) and above.
func (c config) logger() (logr.Logger, error) {
	settings := zap.NewProductionConfig()
	settings.Level = zap.NewAtomicLevelAt(c.logLevel)
	settings.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	settings.Sampling = nil
	settings.DisableStacktrace = true // errors come from the API server and from registries, not from this program
	settings.Encoding = c.logFormat
	if c.logFormat == "console" {
		settings.EncoderConfig = zap.NewDevelopmentEncoderConfig()
	}
	logger, err := settings.Build(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return lazyCore{core} }))
	if err != nil {
		return logr.Logger{}, err
	}
	return zapr.NewLogger(logger), nil
}

// logWith sends all logs to one logger, also those of libraries that use klog, slog or log.
func logWith(logger logr.Logger) {
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	slog.SetDefault(slog.New(logr.ToSlogHandler(logger))) // and package log
}

// lazyCore encodes the values of a logger only when it writes a line. controller-runtime makes a logger with six values for each
// reconciliation and each admission request, most of which write nothing: 5 µs and 1.0 kB of garbage each instead of 18 µs and 4.3 kB, of
// the 0.5 ms that the webhook takes for a Pod, and of the 8 ms that a Task takes in some twenty reconciliations (docs/benchmarks.md).
type lazyCore struct{ zapcore.Core }

// With implements zapcore.Core. Unlike zapcore.NewLazyWith alone, it stays lazy for a logger made from one that has values.
func (c lazyCore) With(fields []zapcore.Field) zapcore.Core {
	return lazyCore{zapcore.NewLazyWith(c.Core, fields)}
}
