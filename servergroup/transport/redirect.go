package transport

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// maxRedirects is how many redirections of one request are followed.
const maxRedirects = 10

// CheckRedirect is the http.Client.CheckRedirect of the clients of replicas. It follows only what
// asks the same server the same question.
func CheckRedirect(req *http.Request, via []*http.Request) error {
	first, to := via[0], withoutSecrets(req.URL)
	switch {
	case req.URL.Host != first.URL.Host: // the group's headers and parameters may be secret
		return fmt.Errorf("redirected to another host, %s: name that one as the target", req.URL.Host)
	case first.URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("redirected from https to %s: name that URL as the target if it may be asked without TLS", to)
	case req.Method != first.Method: // 301, 302 and 303 make a GET without a body of a POST
		return &lostBodyError{statusOf(req), fmt.Sprintf("redirected with status %d, which loses the body of a %s: name the URL that it leads to as the target (from %s to %s)", statusOf(req), first.Method, first.URL.Path, to)}
	case !hasParams(req.URL, first.URL):
		return fmt.Errorf("redirected with status %d, which loses parameters: name the URL that it leads to as the target (from %s to %s)", statusOf(req), first.URL.Path, to)
	case len(via) >= maxRedirects:
		return errors.New("redirected ten times")
	}
	return nil
}

// lostBodyError is a redirection of a POST that would become a GET.
type lostBodyError struct {
	status int
	text   string
}

func (e *lostBodyError) Error() string { return e.text }

// losesBody reports whether a request failed because a redirection would lose its body.
func losesBody(err error) bool {
	var lost *lostBodyError
	return errors.As(err, &lost)
}

// statusOf returns the status of the redirection that a request follows.
func statusOf(req *http.Request) int {
	if req.Response == nil {
		return 0
	}
	return req.Response.StatusCode
}

// hasParams reports whether a URL has all parameters of another one.
func hasParams(u, all *url.URL) bool {
	if u.RawQuery == all.RawQuery {
		return true
	}
	got := u.Query()
	for name, values := range all.Query() {
		if !slices.Equal(got[name], values) {
			return false
		}
	}
	return true
}

// withoutSecrets prints a URL without what may be secret.
func withoutSecrets(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// notFollowed says where a response redirects to that was not followed, as `follow_redirects` is
// off; "" if it does not redirect.
func notFollowed(resp *http.Response) string {
	if resp.StatusCode/100 != 3 {
		return ""
	}
	to, err := resp.Location()
	if err != nil {
		return ""
	}
	return "redirects, which `follow_redirects` forbids to follow: name the URL that it leads to as the target (" + clip(withoutSecrets(to)) + ")"
}
