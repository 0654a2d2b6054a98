// Package rest stands for that of the client of Kubernetes in the build of the demo.
package rest

import "context"

// WarningHandlerWithContext hears warnings.
type WarningHandlerWithContext interface {
	HandleWarningHeaderWithContext(ctx context.Context, code int, agent, message string)
}

// WarningLogger hears none.
type WarningLogger struct{}

// HandleWarningHeaderWithContext does nothing.
func (WarningLogger) HandleWarningHeaderWithContext(context.Context, int, string, string) {}
