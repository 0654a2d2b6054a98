package shared

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzAnswers: no answer panics, and each name has a value or none.
func FuzzAnswers(f *testing.F) {
	for _, text := range []string{
		"END\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n", "VALUE b 0 2\r\nix\r\nEND\r\n", "SERVER_ERROR x\r\n", "STORED\r\nSTORED\r\n",
		"*2\r\n$1\r\nx\r\n$-1\r\n", "*-1\r\n", "-ERR x\r\n", "+OK\r\n+OK\r\n",
		"VALUE a 0 41\r\nd\x00\x00\x00\x00\x00\x00\x00\x010123456789abcdef0123456789abcdef\r\nEND\r\nVALUE a:0123456789abcdef0123456789abcdef:0 0 1\r\nx\r\nEND\r\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		for _, p := range []protocol{memcached{}, redis{Login{Username: "u", Password: func() (string, error) { return "p", nil }, DB: 1}}} {
			connection := func() *conn {
				return &conn{r: bufio.NewReader(bytes.NewReader(answer)), w: bufio.NewWriter(io.Discard), left: maxReply}
			}
			values, _ := p.get(connection(), []string{"a", "b"})
			require.Len(t, values, 2)
			for _, value := range values {
				require.LessOrEqual(t, len(value), len(answer))
			}
			refused, _ := p.set(connection(), []item{{"a", []byte("x"), 1e9}, {"b", make([]byte, pieceSize), 1e9}})
			require.LessOrEqual(t, refused, 2)
			_ = p.hello(connection())
		}
	})
}
