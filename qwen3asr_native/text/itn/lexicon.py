"""The vocabulary of the grammar: numerals, units and the words around numbers, in both scripts."""

from __future__ import annotations

from typing import NamedTuple

from .exceptions import IDIOMS, WEEKDAYS, WORDS


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DIGITS = {
    char: value
    for value, chars in enumerate(["零〇", "一幺么", "二兩两", *"三四五六七八九"])
    for char in chars
}
PLACES = {"十": 10, "百": 100, "千": 1000}
SCALES = {"萬": 10**4, "万": 10**4, "億": 10**8, "亿": 10**8, "兆": 10**12}
NUMERALS = frozenset([*DIGITS, *PLACES, *SCALES])

ZERO = frozenset("零〇")
TWO_OF = frozenset("兩两")  # "two" of things: never in a string of digits
SPOKEN_ONE = frozenset("幺么")  # "one" in strings of digits only
NOT_ONE_AFTER = frozenset("什甚怎這这那多要干幹")  # 什么, 怎么: 么 is no digit here

POINT = frozenset("點点")
HOUR_WORD = frozenset("時时")
DAY = frozenset("日號号")
AND_MORE = frozenset("多餘余")  # 十多個, 三十多歲
AND_SOME = frozenset("幾几來来")  # 十幾個
APPROXIMATE = frozenset("幾几數数")  # before: 幾十, 數百萬
MINUS = frozenset("負负")
CONNECTORS = frozenset("到至")
# 快一點, 好一點: "a bit", not "one point"
COMPARATIVE_BEFORE_A_BIT = frozenset("快慢早晚遠远近輕轻重好差高低長长短大小多少")
# 三比二大: compares things, is no score
COMPARATIVE_AFTER_RATIO = frozenset("大小多少高低強强好差長长快慢還还更")


class Unit(NamedTuple):
    """A word after a number."""

    counts_digit: bool  # 三個 -> 3個: also a single digit before it is a number
    family: str  # units of one family make compounds: 三小時二十分
    symbol: str  # written form, "" for the word itself


def _units() -> dict[str, Unit]:
    units: dict[str, Unit] = {}

    def add(words: str, counts_digit: bool = True, family: str = "") -> None:
        for word in words.split():
            units[word] = Unit(counts_digit, family, "")

    # Measure words for things and events.
    add(
        "個 个 位 名 人 隻 只 條 条 張 张 本 件 台 臺 輛 辆 部 杯 瓶 碗 包 盒 箱 顆 颗 粒 朵 棵 匹 架 艘 支 枝 雙 双 套 份 組 组"
    )
    add(
        "句 項 项 種 种 層 层 級 级 屆 届 期 集 季 章 頁 页 題 题 班 排 列 座 棟 栋 戶 户 家 間 间 次 場 场 局 隊 队 票 席 筆 笔"
    )
    add(
        "片 根 頭 头 把 块 塊 道 首 篇 批 串 袋 桶 罐 桌 床 盞 盏 扇 枚 株 束 幅 則 则 封 趟 圈 胎 格 課 课 卷 冊 册"
    )
    add("歲 岁 倍 成 折 顆星 人份 人次 年次 個百分點 个百分点", True)
    # Words that follow numbers, but not a single digit: 十點, 十二月, but 三點, 六月.
    add("點 点 月 年級 年级 年代 世紀 世纪 年制 點鐘 点钟 字 步 口 面 段 下 回 國 国 星 所 通 代", False)
    # Time.
    add("年 個月 个月", True, "years")
    add("天 週 周", True)
    add("小時 小时 個小時 个小时 鐘頭 钟头 分鐘 分钟 分 秒 秒鐘 秒钟", True, "duration")
    add("日 號 号", True, "date")
    # Money.
    add("元 圓 圆 塊錢 块钱 角 毛 分錢 分钱", True, "money")
    add(
        "美元 美金 歐元 欧元 日圓 日元 日幣 日币 英鎊 英镑 港幣 港币 港元 人民幣 人民币 台幣 臺幣 台币 韓元 韩元 韓圜",
        True,
    )
    # Quantities.
    add(
        "公里 公尺 公分 公厘 米 厘米 毫米 微米 奈米 纳米 英里 英尺 英寸 英吋 寸 吋 尺 海里 光年",
        True,
        "length",
    )
    add("公斤 公克 公噸 公吨 噸 吨 斤 台斤 磅 盎司 克拉", True, "weight")
    add("坪 平方公尺 平方米 平方公里 平方公分 畝 亩 公頃 公顷 立方公尺 立方米", True)
    add(
        "公升 升 毫升 加侖 加仑 西西 卡 大卡 千卡 焦耳 瓦 千瓦 度電 度电 伏特 伏 安培 赫茲 赫兹 百帕 帕 分貝 分贝 像素 畫素",
        True,
    )
    add("度 攝氏度 摄氏度 級分 级分", True)
    # Addresses and scores.
    add("巷 弄 樓 楼 室", True, "address")
    add("勝 胜 敗 败", True, "score")
    # Written with a symbol.
    for word, symbol in (("克", "g"), ("千克", "kg"), ("毫克", "mg")):
        units[word] = Unit(True, "weight", symbol)
    for distance, symbol in (("千米", "km"), ("公里", "km"), ("米", "m"), ("公尺", "m")):
        for time, per in (("小時", "h"), ("小时", "h"), ("秒", "s")):
            units[f"{distance}每{time}"] = Unit(True, "", f"{symbol}/{per}")
    units["千米"] = Unit(True, "length", "")
    return units


UNITS = _units()
# Units that begin with a numeral: 三千米 is 三千 | 米, but 三十一千米 is 三十一 | 千米.
KILO_UNITS = frozenset(word for word in UNITS if word[0] in PLACES)
# 五千克 is read as 五 | 千克.
KILO_AFTER_DIGIT = frozenset({"千克"})
# A single digit may follow: 三十七度五, 六成八.
TAIL_UNITS = _words("度 成 秒")
ZERO_UNITS = _words("元 分 度 歲 岁 公里 公分")
NOT_AFTER_TEN = frozenset("分")  # 十分: "very"

ERAS = _words("民國 民国 西元 公元")
TIMES_OF_DAY = _words("上午 下午 早上 晚上 凌晨 中午 半夜 清晨 傍晚 今早 今晚 明早 明晚 昨晚 深夜")
LABELS = _words(
    "分機 分机 編號 编号 號碼 号码 代號 代号 代碼 代码 密碼 密码 驗證碼 验证码 房號 房号 車牌 车牌 統編 學號 学号 座號 座号"
    " 請按 请按 轉 转 車號 车号 統一編號 统一编号 卡號 卡号 電話 电话 手機 手机 轉分機 转分机 民國 民国 西元 公元"
)
KEYS = _words("請按 请按 分機 分机 轉分機 转分机")
PERCENT = {"百分之": "%", "千分之": "‰"}
OPERATORS = _words("加 減 减 乘 乘以 除以")
EQUALS = _words("等於 等于")
KEYWORDS = _words("分之 半 比 負 负 第 又 之 每 到 至") | OPERATORS | EQUALS
THINGS = _words("個 个 次 下")
# Protected alone, but before a unit and in percentages they are numbers: 八九十歲.
PROTECTED_ALONE = _words("八九十 二百五")

PROTECTED = _words(IDIOMS) | _words(WORDS) | _words(WEEKDAYS)
# Protected also right after a numeral: 五十一定 is 五十 | 一定.
STICKY = _words("一定 一般 一直 一些 一旦 一向 一邊 一边")
SHORT_WEEKDAYS = frozenset(week + day for week in "週周" for day in "一二三四五六")
NOT_WEEKDAY_BEFORE = frozenset("天次小個个")  # 每週三次
NUMBER_SIGN = frozenset("號号")  # a house number makes compounds with 巷 and 樓
AFTER_TWO_DIGITS = _words("年 年次 年代 折")  # 八五折, 八六年次
MARKS = frozenset("/%‰")  # letters behind them are units: km/h
