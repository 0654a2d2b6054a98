package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
)

// externalURL is the URL under which clients reach oneprom: the flag's, or one
// made of the host name and the port of the listener's address. Its path starts
// with a slash and does not end with one; the root is the empty path.
func externalURL(flag, listening string) (*url.URL, error) {
	if flag == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("external URL: %w: set --web.external-url", err)
		}
		_, port, err := net.SplitHostPort(listening)
		if err != nil {
			return nil, fmt.Errorf("external URL: %w", err)
		}
		flag = "http://" + net.JoinHostPort(host, port)
	}
	if strings.ContainsAny(flag[:1]+flag[len(flag)-1:], `"'`) {
		return nil, errors.New("--web.external-url must not begin or end with quotes")
	}
	u, err := url.Parse(flag)
	if err != nil {
		return nil, fmt.Errorf("--web.external-url: %w", err)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	if u.Path != "" && u.Path[0] != '/' {
		u.Path = "/" + u.Path
	}
	u.RawPath = ""
	return u, nil
}

// routePrefix is the prefix of all routes, from --web.route-prefix or else from
// the external URL. It starts with a slash and does not end with one; the root
// is the empty prefix.
func routePrefix(flag string, external *url.URL) string {
	if flag == "" {
		flag = external.Path
	}
	if trimmed := strings.Trim(flag, "/"); trimmed != "" {
		return "/" + trimmed
	}
	return ""
}
