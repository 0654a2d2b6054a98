package servergroup

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
)

func TestView_WhatNobodyHoldsIsSaid(t *testing.T) {
	a, b := backend(t, "load 15s\n foo{i=\"1\"} 1+1x20"), backend(t, "load 15s\n foo{i=\"1\"} 1+1x20")
	recent, archive := groupOf("recent", a), groupOf("archive", b)
	recent.TimeRange.Start, archive.TimeRange.End = config.Time{Time: time.Unix(90, 0)}, config.Time{Time: time.Unix(45, 0)}
	recent.Labels = map[string]string{"tier": "new"}
	archive.Labels = recent.Labels
	elsewhere := groupOf("elsewhere", backend(t, ""))
	elsewhere.Labels = map[string]string{"tier": "old"}
	const hole = `no server group holds the data of "recent", "archive" from 1970-01-01T00:00:45.001Z to 1970-01-01T00:01:29.999Z` +
		`: no time_range covers that; widen one, or add a group that has it`

	s := newTestSet(t, config.PartialWarn, recent, archive, elsewhere)
	got, ws, err := selectText(t, s, `foo`, 30_000, 105_000)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo", i="1", tier="new"} 30:3 45:4 90:7 105:8`+"\n", got)
	require.Equal(t, []string{"partial answer: " + hole}, strs(ws))

	_, ws, err = selectText(t, s, `foo`, 90_000, 105_000)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
	_, ws, err = selectText(t, s, `foo{tier="old"}`, 30_000, 105_000)
	require.NoError(t, err)
	require.Empty(t, strs(ws), "groups that the selector rules out hold nothing of it")

	s = newTestSet(t, config.PartialError, recent, archive, elsewhere)
	_, _, err = selectText(t, s, `foo`, 60_000, 60_000)
	var unavailable *completeness.UnavailableError
	require.ErrorAs(t, err, &unavailable)
	require.Equal(t, `no server group holds the data of "recent", "archive" from 1970-01-01T00:01:00.000Z to 1970-01-01T00:01:00.000Z`+
		`: no time_range covers that; widen one, or add a group that has it`, unavailable.Error())
	_, ws, err = selectText(t, s, `foo`, 90_000, 105_000)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
}
