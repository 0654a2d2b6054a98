package backendtest

import (
	"bytes"
	"sync"
)

// Log collects what a server or a process writes. It is safe for concurrent use.
type Log struct {
	mtx  sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	return l.text.Write(p)
}

// String returns what has been written so far.
func (l *Log) String() string {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	return l.text.String()
}
