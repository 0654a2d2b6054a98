package api

import (
	"net"
	"net/http"
	"strings"
)

// MaxHeaderText is how much (bytes) of a header or of a path is shown or logged.
const MaxHeaderText = 256

// Clip shortens foreign text to a number of bytes.
func Clip(s string, most int) string {
	if len(s) > most {
		s = s[:most]
		return strings.ToValidUTF8(s, "") + "…"
	}
	return strings.ToValidUTF8(s, "�")
}

// RemoteAddress is where a request comes from.
func RemoteAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
