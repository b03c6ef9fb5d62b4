package main

func (r *loadReport) plot() []byte { return nil }
