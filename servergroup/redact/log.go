package redact

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// LogHandler returns a handler that hides what may be secret in URLs from another one.
func LogHandler(to slog.Handler) slog.Handler { return handler{to} }

type handler struct{ to slog.Handler }

func (h handler) Enabled(ctx context.Context, l slog.Level) bool { return h.to.Enabled(ctx, l) }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, r.Level, URLs(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(attr(a))
		return true
	})
	return h.to.Handle(ctx, out)
}

func (h handler) WithAttrs(as []slog.Attr) slog.Handler { return handler{h.to.WithAttrs(attrs(as))} }
func (h handler) WithGroup(name string) slog.Handler    { return handler{h.to.WithGroup(name)} }

func attrs(as []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(as))
	for i, a := range as {
		out[i] = attr(a)
	}
	return out
}

// attr hides what may be secret in the value of an attribute. A value that has no URL stays
// what it is.
func attr(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(URLs(a.Value.String()))
	case slog.KindGroup:
		a.Value = slog.GroupValue(attrs(a.Value.Group())...)
	case slog.KindAny:
		if text := fmt.Sprintf("%+v", a.Value.Any()); strings.Contains(text, "://") {
			a.Value = slog.StringValue(URLs(text))
		}
	}
	return a
}
