// Package option stands for that of the client of Google's clouds in the build of the demo.
package option

// ClientOption says nothing.
type ClientOption any

// ServiceAccount is a kind of credentials.
const ServiceAccount = ""

// WithScopes says nothing.
func WithScopes(...string) ClientOption { return nil }

// WithAuthCredentialsFile says nothing.
func WithAuthCredentialsFile(string, string) ClientOption { return nil }

// WithCredentials says nothing.
func WithCredentials(any) ClientOption { return nil }
