package main

import (
	"fmt"
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"leavebroker/config"
)

// newLogger writes to standard error: for people on a terminal, as JSON
// elsewhere, unless the configuration says which. The journal stamps its own
// time.
func newLogger(c config.Log) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		return nil, &exitError{code: exitConfig, err: fmt.Errorf("log.level: %w", err)}
	}
	people := c.Format == "console" || c.Format == "auto" && term.IsTerminal(int(os.Stderr.Fd()))
	var encoder zapcore.Encoder
	if people {
		fields := zap.NewDevelopmentEncoderConfig()
		fields.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(fields)
	} else {
		fields := zap.NewProductionEncoderConfig()
		fields.EncodeTime = zapcore.RFC3339NanoTimeEncoder
		if os.Getenv("JOURNAL_STREAM") != "" {
			fields.TimeKey = zapcore.OmitKey
		}
		encoder = zapcore.NewJSONEncoder(fields)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), level)), nil
}
