"""The vocabulary of the grammar: numerals, units and the words around numbers, in both scripts."""

from __future__ import annotations

from .exceptions import IDIOMS, NAMES, WEEKDAYS, WORDS
from .units import UNITS


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DIGITS = {
    char: value
    for value, chars in enumerate(["零〇○", "一幺么", "二兩两", *"三四五六七八九"])
    for char in chars
}
PLACES = {"十": 10, "百": 100, "千": 1000}
TENS = {"廿": 20, "卅": 30}
SCALES = {"萬": 10**4, "万": 10**4, "億": 10**8, "亿": 10**8, "兆": 10**12}
# The digit in 五億三 counts thousands of these, in 三兆二 too.
COUNTED_BY = {"億": ("萬", 10**4), "亿": ("万", 10**4), "兆": ("億", 10**8)}
# 兆 is one character in both scripts: 三兆二 is written with 亿 after one of these, the most usual that only one script has.
SIMPLIFIED = frozenset(
    "这们来国说时会过对没为两万亿见长问间头东书车马鸟鱼龙门开关电话语让认识学习师爱亲义务汉严业产临举"
    "乐买卖写军农决况净凉减凤击划刘则刚创办动劳势区医华协单压县双变叹吗听启员响团园围图圆场坏块坚坛坠"
    "垒备够夹夺奋奖妇妈孙宁实审宽宾导将层岁岂岛币帅帐带帮库应庙废广庆归当录忆忧怀态总恋惊惯战担择拥拦"
    "拨挥损换据断无旧显晓术机杀杂权条极构标样桥梦检楼欢欧残毁毕沟沪泪泽洁测济浅浓涛润涨渐湾湿满滚灭灯"
    "灵灾炉点炼烂烟热爷牵犹狮独狱猎献环现疗疯监盖盘矿码确礼离种积称稳穷竞笔简类粮紧红约级纪纯纲纳纵纸"
    "线练组细织终绍经结绕绘给络绝统继续绩绪绿维综缓编缘缩网罗罚罢职联肃肠肤脑脸艺节药获虑虽补装观规视"
    "览觉触计订讨训议讯记讲许论设访证评诉词试诗询该详误请诸诺读课谁调谈谋谓谢谱贝负财责贤败账货质贩贪"
    "贫购费贺资赋赏赔赖赚赛赞赠赢赶趋跃践轨转轮软轻载较辅辆辈输边达迁运还进远违连迟适选递遗邮邻郑释针"
    "钟钢钱铁银销锁锅错键镇镜闪闭闲闻阅队阳阴阵阶际陆陈险随隐难雾页顶项顺须顾预领频题颜额风飞饭饮饰馆"
    "驱驶驻驾骂验骑骗鸡鸣麦齐齿债"
)
NUMERALS = frozenset([*DIGITS, *PLACES, *TENS, *SCALES])

TWO_OF = frozenset("兩两")  # "two" of things: never in a string of digits
SPOKEN_ONE = frozenset("幺么")  # "one" in strings of digits only
NOT_ONE_AFTER = frozenset("什甚怎這这那多要干幹")  # 什么, 怎么: 么 is no digit here

POINT = frozenset("點点")
LIST_COMMA = "、"
HOUR_WORD = frozenset("時时")
ON_THE_HOUR = "點", "点"
QUARTER = "刻"
DAY = frozenset("日號号")
CIRCLE = "○"  # a zero among digits, else a mark
AFTER_ZERO_DIGIT = frozenset([*DIGITS, *"年月日號号室"])
SHORTER_THAN_A_YEAR = _words("天 日 個星期 个星期 週 周")
THROWN, HIT = "投", "中"  # 十投六中
FOUGHT, WON, DRAWN, LOST = frozenset("戰战局"), frozenset("勝胜"), frozenset("和平"), frozenset("負负敗败")
CURRENCIES = (
    "元",
    "美元",
    "美金",
    "歐元",
    "欧元",
    "日圓",
    "日元",
    "英鎊",
    "英镑",
    "港",
    "人民",
    "台幣",
    "臺幣",
    "台币",
    "塊",
    "块",
    "圓",
    "圆",
)
# After 長一點五 or 近一點三 these say that a number was meant.
MEASURED = frozenset(["length", "weight", "money", "duration"])
MEASURES = _words(
    "倍 成 度 坪 平方公尺 平方米 平方公里 平方公分 畝 亩 公頃 公顷 公升 升 毫升 個百分點 个百分点 百分點 百分点 趴 攝氏度 摄氏度 秒 卡 大卡"
)
AND_MORE = frozenset("多餘余")  # 十多個, 三十多歲
AND_SOME = frozenset("幾几來来")  # 十幾個
ROUND = frozenset("圓圆")  # 十三五圓滿收官
GOOD = "好"  # 三十好幾 stays
APPROXIMATE = frozenset("幾几數数")  # before: 幾十, 數百萬
MINUS = frozenset("負负")
CONNECTORS = frozenset("到至")
# 快一點, 好一點: "a bit", not "one point"
COMPARATIVE_BEFORE_A_BIT = frozenset("快慢早晚遠远近輕轻重好差高低長长短大小多少")
# 三比二大: compares things, is no score
COMPARATIVE_AFTER_RATIO = frozenset("大小多少高低強强好差長长快慢還还更")


# Units that begin with a numeral: 三千米 is 三千 | 米, but 三十一千米 is 三十一 | 千米.
KILO_UNITS = frozenset(word for word in UNITS if word[0] in PLACES)
# 五千克 is read as 五 | 千克, 五百分點 as 五 | 百分點.
KILO_AFTER_DIGIT = _words("千克 百分點 百分点")
# A single digit may follow: 三十七度五, 六成八, 十二塊五, 三塊二毛五.
TAIL_UNITS = _words("度 成 秒 米 塊 块 毛 角")
NO_TAIL_OF_ONE = frozenset("塊块")  # 一塊四處走走
ZERO_UNITS = _words("元 分 度 歲 岁 公里 公分")
NOT_AFTER_TEN = frozenset("分")  # 十分: "very"

ERAS = _words("民國 民国 西元 公元")
TIMES_OF_DAY = _words("上午 下午 早上 晚上 凌晨 中午 半夜 清晨 傍晚 今早 今晚 明早 明晚 昨晚 深夜")
BEFORE_TIME = frozenset("在於于到至約约")
# 七點五分出發 is a time, 七點五分 alone may be a score.
AFTER_TIME = _words("出發 出发 開始 开始 集合 抵達 抵达 起飛 起飞 發車 发车 開會 开会 開車 开车 準時 准时")
LABELS = _words(
    "分機 分机 編號 编号 號碼 号码 代號 代号 代碼 代码 密碼 密码 驗證碼 验证码 房號 房号 車牌 车牌 統編 學號 学号 座號 座号"
    " 請按 请按 轉 转 車號 车号 統一編號 统一编号 卡號 卡号 電話 电话 手機 手机 轉分機 转分机 民國 民国 西元 公元"
)
VERSION = _words("版本 版本號 版本号")
AGE = frozenset("歲岁")
ROOM, HALL = "室", frozenset("廳厅")
RISEN = frozenset("升降提增調调推")  # 升高二度, but 高二度過
KEYS = _words("請按 请按 分機 分机 轉分機 转分机")
PERCENT = {"百分之": "%", "千分之": "‰"}
OPERATORS = _words("加 加上 減 减 減去 减去 乘 乘上 乘以 除 除以")
ONE, SCORED = "一", "比"
EQUALS = _words("等於 等于")
ORDINAL = "第"
OVER = "分之"  # 三分之二, but 五十九分之前
KEYWORDS = _words("分之 比 負 负 第 又 之 到 至") | OPERATORS | EQUALS | AFTER_TIME
LUNAR_MONTHS = _words("正月 臘月 腊月 冬月")  # their days stay: 正月十五
HIGHER_BY = _words("層 层 倍 百分點 百分点 個百分點 个百分点")  # 樓高三層
CLASS, SCHOOLS = "班", frozenset("高國国初")  # 高二三班
AGAINST = frozenset("對对")  # 三對夫妻, but 三對三
STEPWISE = "一點一點", "一点一点"
# A protected word is none before these: 三星期, 四人幫忙, 三位數學老師, 三伏特, 五行字.
OTHER_WORD_BEFORE = {
    word: frozenset(following)
    for words, following in (
        ("三星", "期"),
        ("四人幫 四人帮", "忙助我你他她"),
        ("三位數 三位数 五位數 五位数", "學学"),
        ("三伏", "特"),
        ("五行", "字詩诗程代"),
    )
    for word in words.split()
}
THINGS = _words("個 个 次 下")
# A name unless a longer number or a length follows: 高三學生, but 高三十公尺 and 高三公尺.
NAMES_BEFORE_NUMERAL = _words(NAMES)
# Protected alone, but before a unit and in percentages they are numbers: 八九十歲.
PROTECTED_ALONE = _words("八九十 二百五 四周")

# Names of places that are counts after a verb: 九份老街, but 收了九份文件.
PLACES_OR_COUNTS = _words("九份 八里 三星 五金 三戰 三战 五股 七股")
GOT = _words("收到 拿到 接到 買到 买到 得到 找到 看到 達到 达到 分成 切成 拆成 分為 分为 賣出 卖出")
COUNTING = frozenset("了有共總总立設设開开收簽签買买訂订送吃約约近超達达走跑每派配")
LEFT = _words("離開 离开")  # 離開九份 is a place
OF_MEDALS = "五金"  # 五金行, but 五金三銀
SILVER = frozenset("銀银")
# 二度開閘 is "again", 升溫二度 a measure.
AGAIN = _words("二度 三度 四度 五度 六度")
MORE_THAN_AGAIN = frozenset("奪夺蟬蝉獲获入登挑贏赢拿捧參参")  # 四度奪冠, but 四度電
SECONDARY = "二次"  # of things 兩次 is said
REIGN = "世"
LONELY = frozenset("孤冷稀空")  # 孤零零, but 零零後 are people
LAST = frozenset("末後后")  # 末四碼
CODE = frozenset("碼码")
MEASURED_BEFORE = frozenset("下溫温氏緯纬經经升降低高約约有差偏轉转傾倾斜到至達达是為为")
NOT_AFTER_AGAIN = frozenset("的左以半多之到至和與与角空電电音近C，。、；！？ ")

PROTECTED = _words(NAMES) | _words(IDIOMS) | _words(WORDS) | _words(WEEKDAYS) | LUNAR_MONTHS
# Protected also right after a numeral: 五十一定 is 五十 | 一定.
STICKY = _words("萬眾 万众 百貨 百货 一定 一般 一直 一些 一旦 一向 一邊 一边")
SHORT_WEEKDAYS = frozenset(week + day for week in "週周" for day in "一二三四五六")
NOT_WEEKDAY_BEFORE = frozenset("天次小個个")  # 每週三次
SUB_NUMBER = "之"
ROADS = frozenset("路街巷弄段")  # 中山路一號
NUMBER_SIGN = frozenset("號号")  # a house number makes compounds with 巷 and 樓
GRADE = "等"
DECADE = "年代"
AFTER_TWO_DIGITS = _words("年 年次 年代 折 無鉛 无铅")  # 八五折, 八六年次, 九五無鉛
# What stands before a word and says what it is; otherwise without a meaning.
BEFORE_WORDS = MEASURED_BEFORE | RISEN | COUNTING | SCHOOLS | frozenset("".join([*GOT, *LEFT]))
MARKS = frozenset("/%‰")  # letters behind them are units: km/h
# Characters that are tokens of their own, because the grammar asks what stands beside a number.
CONTEXT = frozenset().union(
    LIST_COMMA,
    HOUR_WORD,
    QUARTER,
    NOT_ONE_AFTER,
    AND_MORE,
    AND_SOME,
    APPROXIMATE,
    COMPARATIVE_BEFORE_A_BIT,
    COMPARATIVE_AFTER_RATIO,
    SPOKEN_ONE,
    MARKS,
    BEFORE_TIME,
    ROADS,
    FOUGHT,
    WON,
    DRAWN,
    LOST,
    LAST,
    REIGN,
    THROWN,
    HIT,
    LONELY,
)
