package contract

import (
	"strconv"
	"strings"
	"time"
)

// The times of a record are in UTC, in the form of RFC 3339. Package time would do, but links what reads and applies time zones: the agent would
// have 60 kB more in memory, and every step has one.

// secondsPerDay is the length of a day in UTC, in which time.Time has no leap seconds.
const secondsPerDay = 24 * 60 * 60

// FormatTime returns a time as in 2006-01-02T15:04:05.999Z, with up to nine digits of the second. The year has four digits.
func FormatTime(t time.Time) string {
	seconds := t.Unix()
	days := floorDiv(seconds, secondsPerDay)
	second := int(seconds - days*secondsPerDay)
	year, month, day := civil(days)
	text := digits(year, 4) + "-" + digits(month, 2) + "-" + digits(day, 2) +
		"T" + digits(second/3600, 2) + ":" + digits(second/60%60, 2) + ":" + digits(second%60, 2)
	if fraction := t.Nanosecond(); fraction > 0 {
		text += "." + strings.TrimRight(digits(fraction, 9), "0")
	}
	return text + "Z"
}

// digits returns a number with leading zeros.
func digits(n, width int) string {
	text := strconv.Itoa(n)
	return strings.Repeat("0", max(0, width-len(text))) + text
}

// civil returns the date of a day, counted from 1970-01-01, in the Gregorian calendar. It counts in eras of 400 years, which begin in March: the
// leap day is the last one of a year (Howard Hinnant, chrono-Compatible Low-Level Date Algorithms).
func civil(days int64) (year, month, day int) {
	days += 719468 // from 0000-03-01
	era := floorDiv(days, 146097)
	dayOfEra := int(days - era*146097)
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	monthFromMarch := (5*dayOfYear + 2) / 153
	day = dayOfYear - (153*monthFromMarch+2)/5 + 1
	year, month = yearOfEra+int(era)*400, monthFromMarch+3
	if month > 12 {
		year, month = year+1, month-12
	}
	return year, month, day
}

// daysFrom is the opposite of civil.
func daysFrom(year, month, day int) int64 {
	if month <= 2 {
		year, month = year-1, month+12
	}
	era := floorDiv(int64(year), 400)
	yearOfEra := year - int(era)*400
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	dayOfEra := yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear
	return era*146097 + int64(dayOfEra) - 719468
}

func floorDiv(a, b int64) int64 {
	if a%b < 0 {
		return a/b - 1
	}
	return a / b
}

// parseTime parses what FormatTime returns. It returns nil for a value that is not such a time.
func parseTime(value string) *time.Time {
	const layout = "0000-00-00T00:00:00" // a zero stands for a digit
	text, isUTC := strings.CutSuffix(unquote(value), "Z")
	text, fraction, hasFraction := strings.Cut(text, ".")
	if !isUTC || len(text) != len(layout) || hasFraction != (fraction != "") || len(fraction) > 9 || !areDigits(fraction) {
		return nil
	}
	for i := range len(layout) {
		if isDigit := areDigits(text[i : i+1]); isDigit != (layout[i] == '0') || !isDigit && text[i] != layout[i] {
			return nil
		}
	}
	number := func(text string) int { n, _ := strconv.Atoi(text); return n }
	year, month, day := number(text[:4]), number(text[5:7]), number(text[8:10])
	hour, minute, second := number(text[11:13]), number(text[14:16]), number(text[17:])
	days := daysFrom(year, month, day)
	if y, m, d := civil(days); month < 1 || y != year || m != month || d != day || hour > 23 || minute > 59 || second > 59 {
		return nil
	}
	nanoseconds := number((fraction + "000000000")[:9])
	t := time.Unix(days*secondsPerDay+int64(hour*3600+minute*60+second), int64(nanoseconds)).UTC()
	if t.IsZero() {
		return nil
	}
	return &t
}

func areDigits(text string) bool {
	return strings.Trim(text, "0123456789") == ""
}
