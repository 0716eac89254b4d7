module github.com/palisade-sec/palisade

go 1.26
