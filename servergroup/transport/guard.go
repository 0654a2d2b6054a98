package transport

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// PanicError is a panic in a goroutine that was started for a query, where nothing else
// recovers and it would end the process. It is a bug, and thus a runtime.Error.
type PanicError struct {
	Value any
	Stack []byte
}

var _ runtime.Error = (*PanicError)(nil)

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// RuntimeError implements runtime.Error.
func (*PanicError) RuntimeError() {}

// Guard turns a panic of the function that defers it into an error of that function.
func Guard(err *error) {
	if p := recover(); p != nil {
		*err = &PanicError{Value: p, Stack: debug.Stack()}
	}
}

// StackOf returns the stack of a panic whose value has just been recovered.
func StackOf(panicked any) string {
	if p, ok := panicked.(*PanicError); ok {
		return string(p.Stack)
	}
	return string(debug.Stack())
}

// Guarded is f with a panic as its error: one replica's answer may be what is broken,
// and the others' answers still be of use.
func Guarded(f func() error) (err error) {
	defer Guard(&err)
	return f()
}
