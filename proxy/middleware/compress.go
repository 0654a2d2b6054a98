package middleware

import (
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"

	"github.com/oneprom/oneprom/proxy/unread"
)

// smallAnswer (bytes) is how long an answer may be to be sent as it is: it fits into one packet, and a
// compressor costs more than all else that a small query does.
const smallAnswer = 1 << 10

// Compress answers with gzip or deflate if the client asks for it. What h has made waits before it is
// compressed, so h does not compress itself.
func Compress(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Vary", "Accept-Encoding")
		encoding := encodingFor(r.Header.Get("Accept-Encoding"))
		own := *r
		own.Header = maps.Clone(r.Header)
		own.Header.Del("Accept-Encoding")
		if encoding == "" {
			h(unread.Whole(w, w), &own)
			return
		}
		c := &compressing{ResponseWriter: w, encoding: encoding}
		h(unread.Whole(c, w), &own)
		c.end() // unless h panics
	}
}

// encodingFor returns the first encoding that a client accepts of those that there are, as upstream
// reads the header; "" if it accepts none.
func encodingFor(accepted string) string {
	for each := range strings.SplitSeq(accepted, ",") {
		if each = strings.TrimSpace(each); compressors[each] != nil {
			return each
		}
	}
	return ""
}

// compressor is a gzip.Writer or a zlib.Writer.
type compressor interface {
	io.WriteCloser
	Reset(to io.Writer)
}

// compressors are those that are not in use, by encoding. Each holds more than 1 MB.
var compressors = map[string]*sync.Pool{
	"gzip":    {New: func() any { return gzip.NewWriter(nil) }},
	"deflate": {New: func() any { return zlib.NewWriter(nil) }},
}

// compressing is an http.ResponseWriter that compresses an answer, unless it is small.
type compressing struct {
	http.ResponseWriter
	encoding string
	code     int        // 0: none was said
	held     []byte     // the beginning of the body, as long as the answer may be small
	by       compressor // nil: as long as it may be
}

// WriteHeader implements http.ResponseWriter.
func (c *compressing) WriteHeader(code int) {
	if c.by != nil || c.code != 0 { // let net/http say that it is superfluous
		c.ResponseWriter.WriteHeader(code)
		return
	}
	c.code = code
}

// Write implements http.ResponseWriter.
func (c *compressing) Write(b []byte) (int, error) {
	if c.by == nil {
		if len(c.held)+len(b) <= smallAnswer {
			c.held = append(c.held, b...)
			return len(b), nil
		}
		if err := c.begin(); err != nil {
			return 0, err
		}
	}
	return c.by.Write(b)
}

// begin begins an answer that is not small.
func (c *compressing) begin() error {
	c.Header().Set("Content-Encoding", c.encoding)
	c.Header().Del("Content-Length")
	c.writeCode()
	c.by = compressors[c.encoding].Get().(compressor)
	c.by.Reset(c.ResponseWriter)
	_, err := c.by.Write(c.held)
	c.held = nil
	return err
}

func (c *compressing) writeCode() {
	if c.code != 0 {
		c.ResponseWriter.WriteHeader(c.code)
	}
}

// end sends what is left of the answer. If the client has gone, nobody is there to be told.
func (c *compressing) end() {
	if c.by == nil {
		c.writeCode()
		if len(c.held) > 0 {
			_, _ = c.ResponseWriter.Write(c.held)
		}
		return
	}
	_ = c.by.Close()
	c.by.Reset(nil) // it holds nothing of this answer any more
	compressors[c.encoding].Put(c.by)
}
