package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// ownAPI is upstream's API over what is oneprom's own, as any server has it: rules,
// Alertmanagers, notifications. It lets everybody in: who asks has a slot already.
type ownAPI struct{ handler http.Handler }

// ask decodes the data of an answer on behalf of a request. What upstream refuses is an
// *apiError with its words.
func (o ownAPI) ask(r *http.Request, path, rawQuery string, data any) error {
	own := r.Clone(r.Context())
	own.URL = &url.URL{Path: path, RawQuery: rawQuery}
	own.Method, own.Body, own.Form, own.PostForm = http.MethodGet, http.NoBody, nil, nil
	own.Header = http.Header{}
	var w heldAnswer
	o.handler.ServeHTTP(&w, own)
	var envelope struct {
		Data      json.RawMessage `json:"data"`
		ErrorType string          `json:"errorType"`
		Error     string          `json:"error"`
	}
	if err := json.Unmarshal(w.body.Bytes(), &envelope); err != nil {
		return fmt.Errorf("oneprom's own answer to %s: status %d: %w", path, w.code, err)
	}
	if envelope.ErrorType != "" {
		return &apiError{w.code, envelope.ErrorType, errors.New(envelope.Error)}
	}
	if err := json.Unmarshal(envelope.Data, data); err != nil {
		return fmt.Errorf("oneprom's own answer to %s: %w", path, err)
	}
	return nil
}

// heldAnswer is an http.ResponseWriter that keeps what is written.
type heldAnswer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (w *heldAnswer) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

func (w *heldAnswer) WriteHeader(code int) { w.code = code }

func (w *heldAnswer) Write(b []byte) (int, error) { return w.body.Write(b) }
