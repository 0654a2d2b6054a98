package transport

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// uncompress makes the body of a response readable that is compressed although that was not asked
// for: net/http uncompresses only what it has asked for itself. What is made of them is
// bounded by the readers of the body, as they are without compression. Remote read has a
// compression of its own, snappy, which is left to its decoder.
func uncompress(resp *http.Response) error {
	coding := strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding")))
	inner, last := "", coding
	if i := strings.LastIndexByte(coding, ','); i >= 0 {
		inner, last = strings.TrimSpace(coding[:i]), strings.TrimSpace(coding[i+1:])
	}
	if last == "gzip" || last == "x-gzip" {
		resp.Body = &gunzip{body: resp.Body}
		resp.ContentLength = -1
		coding = inner
	}
	switch coding {
	case "", "identity", "snappy":
		return nil
	}
	return fmt.Errorf("the answer has the Content-Encoding %q, which was not asked for: something in front of the server compresses", clip(coding))
}

// gunzip uncompresses a body while it is read.
type gunzip struct {
	body io.ReadCloser
	zip  *gzip.Reader
}

func (g *gunzip) Read(p []byte) (int, error) {
	if g.zip == nil {
		zip, err := gzip.NewReader(g.body)
		if err != nil {
			return 0, err
		}
		g.zip = zip
	}
	return g.zip.Read(p)
}

func (g *gunzip) Close() error { return g.body.Close() }
