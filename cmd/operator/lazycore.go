package main

import "go.uber.org/zap/zapcore"

// lazyCore encodes the values of a logger when it writes a line. controller-runtime makes a logger with half a dozen values for each reconciliation and
// each admission request, and most of these write nothing.
type lazyCore struct{ zapcore.Core }

// With is zapcore.NewLazyWith, also for a logger that is made from one with values: that would encode them.
func (c lazyCore) With(fields []zapcore.Field) zapcore.Core {
	return lazyCore{zapcore.NewLazyWith(c.Core, fields)}
}
