package views

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/oneprom/oneprom/proxy/api"
)

// SelfAPI is upstream's API over what is oneprom's own, as any server has it: rules,
// Alertmanagers, notifications. It lets everybody in: who asks has a slot already.
type SelfAPI struct{ Handler http.Handler }

// ask decodes the data of an answer on behalf of a request. What upstream refuses is an
// *api.Error with its words.
func (s SelfAPI) ask(r *http.Request, path, rawQuery string, data any) error {
	self := r.Clone(r.Context())
	self.URL = &url.URL{Path: path, RawQuery: rawQuery}
	self.Method, self.Body, self.Form, self.PostForm = http.MethodGet, http.NoBody, nil, nil
	self.Header = http.Header{}
	var w heldResponse
	s.Handler.ServeHTTP(&w, self)
	var envelope struct {
		Data      json.RawMessage `json:"data"`
		ErrorType string          `json:"errorType"`
		Error     string          `json:"error"`
	}
	if err := json.Unmarshal(w.body.Bytes(), &envelope); err != nil {
		return fmt.Errorf("oneprom's own answer to %s: status %d: %w", path, w.code, err)
	}
	if envelope.ErrorType != "" {
		return api.NewError(w.code, envelope.ErrorType, errors.New(envelope.Error))
	}
	if err := json.Unmarshal(envelope.Data, data); err != nil {
		return fmt.Errorf("oneprom's own answer to %s: %w", path, err)
	}
	return nil
}

// heldResponse is an http.ResponseWriter that keeps what is written.
type heldResponse struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (w *heldResponse) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

func (w *heldResponse) WriteHeader(code int) { w.code = code }

func (w *heldResponse) Write(b []byte) (int, error) { return w.body.Write(b) }
