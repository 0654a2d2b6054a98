package queries

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// scriptedFile is a file of which each write has a result.
type scriptedFile struct {
	bytes.Buffer
	script []func(b []byte) (int, error)
	wrote  chan struct{}
}

func (f *scriptedFile) Write(b []byte) (int, error) {
	next := f.script[0]
	f.script = f.script[1:]
	n, err := next(b)
	f.Buffer.Write(b[:n])
	f.wrote <- struct{}{}
	return n, err
}

func (*scriptedFile) Close() error { return errors.New("gone") }

func TestQueryLog_FailuresAreSaidOnceAndCounted(t *testing.T) {
	var logged bytes.Buffer
	l := NewLog(slog.New(slog.NewTextHandler(&logged, nil)), prometheus.NewRegistry())
	full := func([]byte) (int, error) { return 0, errors.New("no space left") }
	torn := func([]byte) (int, error) { return 5, errors.New("no space left") }
	good := func(b []byte) (int, error) { return len(b), nil }
	f := &scriptedFile{script: []func([]byte) (int, error){torn, full, good, good, full}, wrote: make(chan struct{}, 10)}
	l.Use(&File{WriteCloser: f})
	for range f.script {
		l.log(time.Unix(0, 0).UTC(), []slog.Attr{slog.String("query", "a\nb")})
		<-f.wrote
	}
	l.Close()
	const line = `{"time":"1970-01-01T00:00:00Z","query":"a\nb"}` + "\n"
	require.Equal(t, line[:5]+"\n"+line+line, f.String(), "one broken line breaks no other")
	require.Equal(t, 3.0, testutil.ToFloat64(l.lost))
	require.Equal(t, 2, strings.Count(logged.String(), "writing the query log failed"))
	require.Contains(t, logged.String(), "closing the query log failed")
}

// hungFile does not answer until it is closed; release has even that happen.
type hungFile struct{ writing, release chan struct{} }

func (f *hungFile) Write([]byte) (int, error) {
	close(f.writing)
	<-f.release
	return 0, errors.New("stale")
}

func (f *hungFile) Close() error {
	<-f.release
	return nil
}

// A file on a mount that does not answer holds up neither the change to another file nor the end.
func TestQueryLog_HungFileHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		hung := &hungFile{writing: make(chan struct{}), release: make(chan struct{})}
		l.Use(&File{WriteCloser: hung})
		l.log(time.Now(), nil)
		<-hung.writing
		l.log(time.Now(), nil)
		began := time.Now()
		next := &scriptedFile{script: []func([]byte) (int, error){func(b []byte) (int, error) { return len(b), nil }}, wrote: make(chan struct{}, 1)}
		before := l.Use(&File{WriteCloser: next})
		require.Zero(t, time.Since(began))
		l.log(time.Now(), nil)
		<-next.wrote
		l.CloseFile(before)
		require.LessOrEqual(t, time.Since(began), 2*fileWait)
		require.Equal(t, 1.0, testutil.ToFloat64(l.lost))
		l.Close()
		close(hung.release)
	})
}

// The same while it is opened.
func TestQueryLog_OpeningHasAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, file := make(chan struct{}), &scriptedFile{}
		_, err := openWithin(func() (io.WriteCloser, error) { <-answer; return file, nil })
		require.ErrorContains(t, err, "global.query_log_file: opening it takes longer than 5s")
		close(answer)
	})
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(fifo, 0o600))
	_, err := OpenLog(fifo)
	require.ErrorContains(t, err, "global.query_log_file: open "+fifo, "nobody reads it")
}

// A file that hangs costs lines, and no time.
func TestQueryLog_DoesNotWaitForTheFile(t *testing.T) {
	l := NewLog(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	hang, wrote := make(chan struct{}), make(chan struct{}, 2*maxWaitingLines)
	f := &scriptedFile{wrote: wrote}
	for range 2 * maxWaitingLines {
		f.script = append(f.script, func(b []byte) (int, error) { <-hang; return len(b), nil })
	}
	l.Use(&File{WriteCloser: f})
	const lines = maxWaitingLines + 10
	for range lines {
		l.log(time.Now(), nil)
	}
	lost := testutil.ToFloat64(l.lost)
	require.GreaterOrEqual(t, lost, 9.0, "one may be under way")
	close(hang)
	l.Close()
	require.Equal(t, lines-int(lost), strings.Count(f.String(), "\n"), "what waited is written at the end")
}
