// Package guard turns panics into errors: what one replica's response makes panic must not
// end the process, nor take the other replicas' responses away.
package guard

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// PanicError is a panic of a goroutine that was started for a query, where nothing else
// recovers. It is a bug, and thus a runtime.Error.
type PanicError struct {
	Value any
	Stack []byte
}

var _ runtime.Error = (*PanicError)(nil)

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// RuntimeError implements runtime.Error.
func (*PanicError) RuntimeError() {}

// Recover turns a panic of the function that defers it into an error of that function.
func Recover(err *error) {
	if p := recover(); p != nil {
		*err = &PanicError{Value: p, Stack: debug.Stack()}
	}
}

// Call calls f and returns its error, or its panic as an error.
func Call(f func() error) (err error) {
	defer Recover(&err)
	return f()
}

// StackOf returns the stack of a panic whose value has just been recovered.
func StackOf(panicked any) string {
	if p, ok := panicked.(*PanicError); ok {
		return string(p.Stack)
	}
	return string(debug.Stack())
}
