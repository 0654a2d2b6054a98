package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/transport/meter"
	"github.com/oneprom/oneprom/servergroup/transport/remoteread"
)

// read fetches by remote read. A backend that was asked for a stream may still send samples,
// as Cortex does: the content type says which of the two it is.
func (c *Client) read(ctx context.Context, m Method, r Request) ([]Series, error) {
	resp, err := c.sendRead(ctx, m, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if r.NextResponse != nil {
		r.NextResponse()
	}
	var series []Series
	decode, o := remoteread.DecodeSamples, remoteread.Options{
		From: c.URL(), MinT: r.MinT, MaxT: r.MaxT, Labels: r.Labels, Meter: meter.New(ctx, r.Charge),
		Emit: func(l labels.Labels, replica string, run dedup.Run) {
			series = append(series, Series{Labels: l, Replica: replica, Run: run})
		},
	}
	if isStream(resp) {
		decode = remoteread.DecodeStream
	}
	if err = decode(resp.Body, o); err == nil {
		return series, nil
	}
	var broken *remoteread.FormatError
	var said *remoteread.ServerError
	switch {
	case errors.As(err, &said):
		return nil, &Error{Class: ClassServer, URL: c.URL(), Err: err}
	case errors.As(err, &broken):
		return nil, c.contentError(err)
	}
	return nil, c.bodyError(ctx, err)
}

func (c *Client) sendRead(ctx context.Context, m Method, r Request) (*http.Response, error) {
	body, err := remoteread.Request{Matchers: c.dialect.portable(r.Matchers), MinT: r.MinT, MaxT: r.MaxT, Func: r.Func, Streamed: m == StreamedRead}.Encode()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint(c.ReadPath, nil), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", typeProto)
	req.Header.Set("Accept-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Read-Version", "0.1.0")
	return c.send(req, typeStream, typeProto)
}

func isStream(resp *http.Response) bool {
	return bytes.HasPrefix([]byte(resp.Header.Get("Content-Type")), []byte(typeStream))
}

// ProbeRead requests series that do not exist by remote read, and returns the method by
// which the backend responds.
func (c *Client) ProbeRead(ctx context.Context) (Method, error) {
	resp, err := c.sendRead(ctx, StreamedRead, matchNothing())
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody)); err != nil {
		return "", c.bodyError(ctx, err)
	}
	if isStream(resp) {
		return StreamedRead, nil
	}
	return SamplesRead, nil
}
