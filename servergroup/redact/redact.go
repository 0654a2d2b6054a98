// Package redact hides what may be secret in URLs, wherever they leave the process: in logs,
// metrics, spans, the configuration that is shown, and errors.
//
// Much of what tells URLs is upstream's, which hides passwords at most, and not everywhere: a
// key in the parameters of a URL of remote_write stands in its logs and labels. So URLs are
// looked for in the texts themselves, at the few places where texts get out.
package redact

import (
	"net/url"
	"regexp"
	"strings"
)

// Text stands for what is not shown, as upstream's types do of themselves.
const Text = "<secret>"

// A URL ends where a text would quote or separate it.
var anyURL = regexp.MustCompile("[a-zA-Z][a-zA-Z0-9+.-]*://[^\\s\"'`\\\\]+")

// URLs hides the passwords, parameters and fragments of all URLs in a text. A user without a
// password is hidden, too, as tokens stand there.
func URLs(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	return anyURL.ReplaceAllStringFunc(text, one)
}

// one hides what may be secret in one URL, which may be malformed.
func one(text string) string {
	scheme, rest, _ := strings.Cut(text, "://")
	end := strings.IndexAny(rest, "/?#")
	if _, err := url.Parse(text); err != nil || end < 0 {
		end = len(rest) // a password may have any character
	}
	if at := strings.LastIndexByte(rest[:end], '@'); at >= 0 {
		user, _, hasPassword := strings.Cut(rest[:at], ":")
		if !hasPassword {
			user = "xxxxx"
		} else {
			user += ":xxxxx"
		}
		rest = user + rest[at:]
	}
	if i := strings.IndexAny(rest, "?#"); i >= 0 && i+1 < len(rest) {
		rest = rest[:i+1] + Text
	}
	return scheme + "://" + rest
}
