package transport

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// Parameters are sent as forms by POST, as they may be too long for a URL. There are proxies that
// lose the bodies of forms, and redirections that do. All endpoints that get forms refuse to answer without parameters, so
// that an answer shows that its form has arrived, and a refusal is worth another try by GET.
//
// Label names can be asked for without parameters, and would then be those of all series. So they
// are asked for by GET.

// Forms is whether forms reach a replica, as its answers have shown it. It is safe for concurrent
// use.
type Forms struct {
	mtx    sync.Mutex // guards the fields below
	arrive bool       // one has
	lost   error      // what a form got, where a GET with the same parameters got an answer
}

// Lost returns the error that a form got because it did not arrive; nil if none is known to be lost.
func (f *Forms) Lost() error {
	if f == nil {
		return nil
	}
	f.mtx.Lock()
	defer f.mtx.Unlock()
	return f.lost
}

// doubtful reports whether no form is known to have arrived.
func (f *Forms) doubtful() bool {
	if f == nil {
		return true
	}
	f.mtx.Lock()
	defer f.mtx.Unlock()
	return !f.arrive
}

// set records whether forms arrive; false and nil mean that it is not known.
func (f *Forms) set(arrive bool, lost error) {
	if f == nil {
		return
	}
	f.mtx.Lock()
	defer f.mtx.Unlock()
	f.arrive, f.lost = arrive, lost
}

// CheckForms makes the client doubt that forms arrive, so that it notices a change. If forms were
// lost, it tries whether they arrive now.
func (c *Client) CheckForms(ctx context.Context) {
	if c.Forms.Lost() == nil || c.formsArrive(ctx) {
		c.Forms.set(false, nil)
	}
}

// formsArrive reports whether a form arrives.
func (c *Client) formsArrive(ctx context.Context) bool {
	resp, err := c.post(ctx, "/api/v1/query", url.Values{"query": {simplest}})
	if err != nil {
		return false
	}
	_, err = c.text(resp, nil, new(json.RawMessage))
	return err == nil
}

// form sends parameters as a form by POST, or by GET where POST is refused or loses forms. The
// response is JSON, or of a type in also.
func (c *Client) form(ctx context.Context, path string, params url.Values, also ...string) (*http.Response, error) {
	if c.Forms.Lost() != nil {
		return c.get(ctx, path, params, also...)
	}
	resp, err := c.post(ctx, path, params, also...)
	switch {
	case err == nil:
		if c.Forms.doubtful() {
			c.Forms.set(true, nil)
		}
	case refusesPost(err):
		return c.get(ctx, path, params, also...)
	case losesBody(err) || c.mayBeLost(err) && c.Forms.doubtful():
		if other, failed := c.get(ctx, path, params, also...); failed == nil {
			c.Forms.set(false, err)
			return other, nil
		}
	}
	return resp, err
}

// getOrForm sends parameters by GET, or as a form if they are too long for a URL and forms arrive.
func (c *Client) getOrForm(ctx context.Context, path string, params url.Values) (*http.Response, error) {
	resp, err := c.get(ctx, path, params)
	var e *Error
	if errors.As(err, &e) && (e.Status == http.StatusRequestURITooLong || e.Status == http.StatusRequestHeaderFieldsTooLarge) && c.formsArrive(ctx) {
		return c.post(ctx, path, params)
	}
	return resp, err
}

func (c *Client) post(ctx context.Context, path string, params url.Values, also ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint(path, nil), strings.NewReader(params.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.send(req, append(also, typeJSON)...)
}

func (c *Client) get(ctx context.Context, path string, params url.Values, also ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.endpoint(path, params), nil)
	if err != nil {
		return nil, err
	}
	return c.send(req, append(also, typeJSON)...)
}

// refusesPost reports whether an error says that another method is wanted.
func refusesPost(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusNotImplemented)
}

// mayBeLost reports whether an error may be that of a request whose form did not arrive, or is not
// let through. 422 is the answer to a query that was evaluated, but VictoriaMetrics' answer to all.
func (c *Client) mayBeLost(err error) bool {
	var e *Error
	if !errors.As(err, &e) || tooMuch(err) {
		return false
	}
	switch e.Status {
	case http.StatusBadRequest, http.StatusForbidden:
		return true
	case http.StatusUnprocessableEntity:
		return c.dialect.Exports
	}
	return false
}
