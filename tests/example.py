"""The request of the manual: a collection we know, and one given inline."""

EXAMPLE = """
run: landsat-pair
catalog: items.json
collections:
  - sentinel-2-l2a
  - id: landsat-l1
    dtype: uint16
    nodata: 0
    scale: 1.0
    offset: 0.0
    bands:
      blue: {asset: B2, resolution: 30}
      red: {asset: visual, band: 1, resolution: 30}
      qa: {asset: QA, resolution: 30, categorical: true}
area: {bbox: [-55.2, -26.0, -53.9, -24.9]}
dates: 2020-05-18/2020-05-19
select: {max_cloud_cover: 30, max_nodata: 5}
grid: {crs: "EPSG:32621", resolution: 30, bounds: [694005, -2832795, 778575, -2766615]}
product: {kind: mosaic, bands: [blue, red], group_by: day, method: first, resampling: nearest}
output: out/landsat-pair
runner: auto
limits: {max_scenes: 1000, max_bytes: 1TB, max_failed: 0.05}
"""
