package advice

import (
	"errors"
	"strings"
	"testing"
)

func TestPrintShowsNamesAsText(t *testing.T) {
	var b strings.Builder
	Print(&b, "marfsctl", errors.New("a\x1b[31m\nmarfsctl: error: fake\xff\u202e\u009b «ä» \\x"), "see b\r\nc")
	want := "marfsctl: error: a\\x1b[31m; marfsctl: error: fake\\xff\\u202e\\u009b «ä» \\x\nhint: see b\\r; c\n"
	if b.String() != want {
		t.Errorf("%q\nwant %q", b.String(), want)
	}
}
