package transport

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Started returns when the process that answers was started, as it says; "" if it does not say.
func (c *Client) Started(ctx context.Context) (string, error) {
	var info struct {
		StartTime string `json:"startTime"`
	}
	err := c.Status(ctx, "runtimeinfo", &info)
	return clip(info.StartTime), err
}

// StartedByOwnConnection is Started by a connection that is closed then: a load balancer may choose another
// server for the next one.
func (c *Client) StartedByOwnConnection(ctx context.Context) (string, error) {
	own := *c
	own.lastOnConnection = true
	return own.Started(ctx)
}

// Block is a block of samples on the disk of a Prometheus, as /api/v1/status/tsdb/blocks tells it.
type Block struct {
	ULID             string
	MinTime, MaxTime int64 // ms; its samples are in [MinTime, MaxTime)
	Stats            struct {
		NumTombstones uint64 // what was deleted and is still on the disk
	}
	Compaction struct {
		Sources []string // ULIDs of the blocks that it was made of, or its own; none if that is not told
	}
}

// Blocks returns the blocks of a backend, sorted by the time that they begin.
func (c *Client) Blocks(ctx context.Context) ([]Block, error) {
	var data struct {
		Blocks []Block `json:"blocks"`
	}
	err := c.Status(ctx, "tsdb/blocks", &data)
	slices.SortFunc(data.Blocks, func(a, b Block) int { return cmp.Compare(a.MinTime, b.MinTime) })
	return data.Blocks, err
}

// HeadFrom returns the time (ms) of the oldest sample that a backend holds in memory; ok is false if it
// holds none.
func (c *Client) HeadFrom(ctx context.Context) (from int64, ok bool, err error) {
	var data struct {
		HeadStats struct {
			NumSeries uint64
			MinTime   int64
		}
	}
	err = c.Status(ctx, "tsdb", &data)
	return data.HeadStats.MinTime, err == nil && data.HeadStats.NumSeries > 0, err
}

// Metric returns the value of a metric without labels that a backend has of itself. It is not
// found if the backend has none.
func (c *Client) Metric(ctx context.Context, name string) (value float64, found bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.endpoint("/metrics", nil), nil)
	if err != nil {
		return 0, false, err
	}
	resp, err := c.send(req, "text/plain")
	if err != nil {
		return 0, false, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(io.LimitReader(resp.Body, maxProbeBody))
	lines.Buffer(nil, maxErrorBody*16)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), name+" ")
		if !ok {
			continue
		}
		if value, err = strconv.ParseFloat(strings.TrimSpace(text), 64); err != nil {
			return 0, false, c.contentError(fmt.Errorf("metric %s: %w", name, err))
		}
		return value, true, nil
	}
	if err := lines.Err(); err != nil {
		return 0, false, c.bodyError(ctx, err)
	}
	return 0, false, nil
}
