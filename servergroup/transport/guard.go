package transport

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// PanicError is a panic in a goroutine that was started for a query: nobody else
// recovers there, and it would end the process. It is a bug, so it is told from
// other errors in the way of those of Go's runtime.
type PanicError struct {
	Value any
	Stack []byte
}

var _ runtime.Error = (*PanicError)(nil)

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// RuntimeError implements runtime.Error.
func (*PanicError) RuntimeError() {}

// Guard turns a panic of the function that defers it into its error.
func Guard(err *error) {
	if p := recover(); p != nil {
		*err = &PanicError{Value: p, Stack: debug.Stack()}
	}
}

// StackOf is where a panic came from that has just been recovered.
func StackOf(panicked any) string {
	if p, ok := panicked.(*PanicError); ok {
		return string(p.Stack)
	}
	return string(debug.Stack())
}
