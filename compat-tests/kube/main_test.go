package kube

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	code := m.Run()
	endShared()
	os.Exit(code)
}
