package api

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"io"
	"net/http"
	"strings"
)

// maxFailureBody is how much (bytes) of an error's body is kept.
const maxFailureBody = 16 << 10

// Recorder is an http.ResponseWriter that knows what was answered, and lets others have a
// say when an answer begins. There is one for a request: RecorderOf finds it.
type Recorder struct {
	http.ResponseWriter
	code     int    // 0: no answer has begun
	failure  []byte // the beginning of the body, if it is that of a failure
	replaced bool   // a hook has answered instead of the handler
	hooks    []Hook
}

// Hook is called when an answer begins, with its status. It may still change headers, and
// returns the status to be sent and what is sent instead of the handler's body; nil is
// nothing.
type Hook func(header http.Header, code int) (int, []byte)

// RecorderOf returns the recorder that a writer writes to, and the writer. A writer without
// one is given one.
func RecorderOf(w http.ResponseWriter) (*Recorder, http.ResponseWriter) {
	for under := w; ; {
		switch at := under.(type) {
		case *Recorder:
			return at, w
		case interface{ Unwrap() http.ResponseWriter }:
			under = at.Unwrap()
			continue
		}
		rec := &Recorder{ResponseWriter: w}
		return rec, rec
	}
}

// OnBegin has a hook called when an answer begins, before those that were added earlier.
// The hook is for the handlers below: when they have returned, or panicked, call remove.
func (w *Recorder) OnBegin(h Hook) (remove func()) {
	n := len(w.hooks)
	w.hooks = append(w.hooks, h)
	return func() { w.hooks = w.hooks[:n] }
}

// Begun reports whether the answer has begun.
func (w *Recorder) Begun() bool { return w.code != 0 }

// Status is that of the answer. It is 200 as long as none has begun.
func (w *Recorder) Status() int {
	if w.code == 0 {
		return http.StatusOK
	}
	return w.code
}

// WriteHeader implements http.ResponseWriter.
func (w *Recorder) WriteHeader(code int) {
	if w.Begun() { // let net/http say that it is superfluous
		if !w.replaced {
			w.ResponseWriter.WriteHeader(code)
		}
		return
	}
	body := w.begin(&code)
	w.ResponseWriter.WriteHeader(code)
	w.replace(body)
}

// begin calls the hooks on an answer that begins, and returns what is sent instead.
func (w *Recorder) begin(code *int) (body []byte) {
	for i := len(w.hooks) - 1; i >= 0 && body == nil; i-- {
		*code, body = w.hooks[i](w.Header(), *code)
	}
	w.code = *code
	return body
}

func (w *Recorder) replace(body []byte) {
	if body == nil {
		return
	}
	w.replaced = true
	w.keep(body)
	_, _ = w.ResponseWriter.Write(body) // as the handler's would be that is not sent
}

// Write implements http.ResponseWriter.
func (w *Recorder) Write(b []byte) (int, error) {
	if !w.Begun() {
		code := http.StatusOK
		if body := w.begin(&code); code != http.StatusOK || body != nil {
			w.ResponseWriter.WriteHeader(code)
			w.replace(body)
		}
	}
	if w.replaced {
		return len(b), nil
	}
	w.keep(b)
	return w.ResponseWriter.Write(b)
}

// keep keeps the beginning of a failure.
func (w *Recorder) keep(b []byte) {
	if w.code >= http.StatusBadRequest && len(w.failure) < maxFailureBody {
		w.failure = append(w.failure, b[:min(len(b), maxFailureBody-len(w.failure))]...)
	}
}

// Flush implements http.Flusher, which streamed remote read insists on.
func (w *Recorder) Flush() {
	if !w.Begun() {
		w.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (w *Recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Failure is the text of an error that was answered; "" if it is none, or too long.
func (w *Recorder) Failure() string {
	var body io.Reader = bytes.NewReader(w.failure)
	var err error
	switch w.Header().Get("Content-Encoding") {
	case "gzip":
		body, err = gzip.NewReader(body)
	case "deflate":
		body, err = zlib.NewReader(body)
	}
	if err != nil {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(body, maxFailureBody))
	if err != nil {
		return ""
	}
	var envelope struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &envelope) == nil {
		return envelope.Error
	}
	return strings.TrimSpace(string(text))
}
