"""Where the simulated courier has its hubs: real cities and their share of the parcels.

Data only. Codes are the cities' airport codes, as couriers write them on their labels; volumes are
rough shares of China's express parcels (Jinhua, with Yiwu in it, leads).
"""

from dataclasses import dataclass
from typing import Final

_CHINA_HOURS = 8


@dataclass(frozen=True, slots=True)
class City:
    """A city: degrees north and east, its relative volume, and its hours ahead of UTC."""

    code: str
    name: str
    latitude: float
    longitude: float
    volume: float
    utc_hours: int = _CHINA_HOURS


CITIES: Final = (
    City("YIW", "金华义乌", 29.31, 120.08, 9.0),
    City("CAN", "广州", 23.13, 113.26, 9.0),
    City("SZX", "深圳", 22.54, 114.06, 7.0),
    City("HGH", "杭州", 30.27, 120.15, 6.0),
    City("SHA", "上海", 31.23, 121.47, 6.0),
    City("PEK", "北京", 39.90, 116.41, 5.0),
    City("DGM", "东莞", 23.02, 113.75, 4.5),
    City("SWA", "揭阳", 23.55, 116.37, 4.5),
    City("CGO", "郑州", 34.75, 113.63, 4.0),
    City("CTU", "成都", 30.57, 104.07, 4.0),
    City("SZV", "苏州", 31.30, 120.58, 4.0),
    City("WUH", "武汉", 30.59, 114.31, 3.5),
    City("SJW", "石家庄", 38.04, 114.51, 3.5),
    City("JJN", "泉州", 24.87, 118.68, 3.5),
    City("LYI", "临沂", 35.10, 118.36, 3.0),
    City("NKG", "南京", 32.06, 118.80, 2.5),
    City("CKG", "重庆", 29.56, 106.55, 2.5),
    City("XIY", "西安", 34.34, 108.94, 2.5),
    City("HFE", "合肥", 31.82, 117.23, 2.5),
    City("CSX", "长沙", 28.23, 112.94, 2.5),
    City("NGB", "宁波", 29.87, 121.54, 2.5),
    City("TSN", "天津", 39.08, 117.20, 2.0),
    City("SHE", "沈阳", 41.80, 123.43, 2.0),
    City("TNA", "济南", 36.65, 117.12, 2.0),
    City("TAO", "青岛", 36.07, 120.38, 2.0),
    City("WNZ", "温州", 28.00, 120.70, 2.0),
    City("KHN", "南昌", 28.68, 115.86, 1.5),
    City("FOC", "福州", 26.07, 119.30, 1.5),
    City("NNG", "南宁", 22.82, 108.37, 1.2),
    City("KMG", "昆明", 25.04, 102.71, 1.2),
    City("HRB", "哈尔滨", 45.80, 126.53, 1.2),
    City("TYN", "太原", 37.87, 112.55, 1.2),
    City("CGQ", "长春", 43.82, 125.32, 1.0),
    City("DLC", "大连", 38.91, 121.61, 1.0),
    City("KWE", "贵阳", 26.65, 106.63, 1.0),
    City("URC", "乌鲁木齐", 43.83, 87.62, 0.7),
    City("LHW", "兰州", 36.06, 103.83, 0.6),
    City("HET", "呼和浩特", 40.84, 111.75, 0.6),
    City("HAK", "海口", 20.04, 110.20, 0.5),
    City("INC", "银川", 38.49, 106.23, 0.4),
    City("XNN", "西宁", 36.62, 101.78, 0.3),
    City("LXA", "拉萨", 29.65, 91.14, 0.2),
)

ABROAD: Final = (
    City("LAX", "洛杉矶", 33.94, -118.41, 5.0, -8),
    City("JFK", "纽约", 40.64, -73.78, 4.0, -5),
    City("NRT", "东京", 35.76, 140.39, 3.0, 9),
    City("ICN", "首尔", 37.46, 126.44, 3.0, 9),
    City("FRA", "法兰克福", 50.03, 8.56, 2.5, 1),
    City("LHR", "伦敦", 51.47, -0.45, 2.5, 0),
    City("CDG", "巴黎", 49.01, 2.55, 2.0, 1),
    City("BKK", "曼谷", 13.69, 100.75, 2.0, 7),
    City("SIN", "新加坡", 1.36, 103.99, 1.5, 8),
    City("KUL", "吉隆坡", 2.75, 101.71, 1.5, 8),
    City("DXB", "迪拜", 25.25, 55.36, 1.5, 4),
    City("GRU", "圣保罗", -23.43, -46.47, 1.5, -3),
    City("SYD", "悉尼", -33.95, 151.18, 1.0, 10),
)
